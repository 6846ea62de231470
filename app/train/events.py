"""What happens on a press on the Train tab."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from app.context import Context
from app.data import row_html
from app.train import check_html, code_consent
from app.train import download as train_download
from app.train.layout import TrainLayout
from app.train.session import TrainSession, shown_run
from app.ui import html as ui_html
from app.ui import menus
from app.ui.form import AS_RECOGNISED, DEFAULTS, explain, flat
from app.ui.updates import Given, Updates
from app.ui.upload import keep_files
from core.data.samples import find_sample
from core.errors import NibbleError
from core.launch.start_from import find_starting_adapter
from core.recipe import Recipe, about_preset, load_recipe, make_recipe, named_in_preset, recipe_presets
from core.runs.resume import resume
from core.runs.store import Run
from core.workspace import write_json

# What a recipe leaves as it stands on the form where its file does not name it.
KEPT = ("model", "data.path", "budget")


class TrainEvents:
    """Each method parses, calls the engine once, and renders."""

    def __init__(self, layout: TrainLayout, context: Context, session: TrainSession) -> None:
        self.layout, self.context, self.session = layout, context, session
        self.parts, self.form = layout.form, layout.form.form
        self.preview, self.run = layout.preview, layout.run
        self.consents = code_consent.Consents(layout.preview.consent, context)

    def start(self, given: Given) -> Updates:
        """Check the settings, make the run and queue it; what cannot work is said beside the button."""
        try:
            return self._submit(self.context.recipe(self.form.values(given)))
        except Exception as error:  # whatever it is, the person is looking here
            return {self.parts.message: explain(error)}

    def try_it(self) -> Updates:
        """The first visit's one press: the quickstart recipe, started."""
        try:
            recipe = load_recipe("quickstart")
            values = flat(recipe)
            write_json(self.context.form_file, values)
            return {**self.form.updates(values), **self._submit(recipe)}
        except Exception as error:  # whatever it is, the person is looking here
            return {self.parts.message: explain(error)}

    def _submit(self, recipe: Recipe) -> Updates:
        from core.launch.submit import submit

        run = submit(recipe, self.context.workspace, self.context.supervisor, self._checked(recipe))
        shown = {self.layout.side: gr.Tabs(selected="run"), self.layout.welcome: gr.Group(visible=False)}
        return {self.parts.message: ui_html.note_box(self._started(run)), **shown}

    def _started(self, run: Run) -> str:
        """What becomes of a run that has been handed over."""
        if run.status().state == "queued":
            return f"Queued. {self.context.supervisor.waits_for()}"
        return "Started. Training continues when you close this page."

    def _checked(self, recipe: Recipe) -> Path:
        """Where the recipe's data lies; what a person brings is read by the helper, not by the server."""
        sample = find_sample(recipe.data.path)
        if sample is not None:
            return sample.path
        found = self.context.helper.call("check", recipe=recipe.model_dump())
        if not found["ok"]:
            raise NibbleError(" ".join(problem["message"] for problem in found["errors"]))
        return Path(found["source"])

    def stop(self) -> Updates:
        """Ask the run on the screen to stop."""
        message = self._say(self.context.supervisor.stop)
        return {self.parts.message: message, self.run.stop: gr.Button("Stopping…", interactive=False)}

    def end_now(self) -> Updates:
        """End the run on the screen without waiting for it."""
        return {self.parts.message: self._say(self.context.supervisor.kill)}

    def resume(self) -> Updates:
        """Let the run on the screen go on from its last checkpoint."""
        return {self.parts.message: self._say(lambda run: self._started(resume(run, self.context.supervisor)))}

    def _say(self, act: Callable[[Run], str]) -> str:
        """What `act` says of the run on the screen, or why it cannot be done, as HTML."""
        run = shown_run(self.context)
        try:
            return ui_html.note_box(act(run)) if run is not None else ""
        except NibbleError as error:
            return explain(error)

    def download(self) -> Updates:
        """Begin to download the model, or stop that."""
        self.session.downloads.press()
        return train_download.updates(self.session.downloads, self.parts.download)

    def keep(self, paths: list[str] | None) -> Updates:
        """Copy the uploaded files into the workspace at once, and choose them."""
        data = self.form.fields["data.path"]
        try:
            kept = keep_files(self.context.workspace, paths)
        except NibbleError as error:
            return {self.parts.message: explain(error), self.parts.upload: None}
        self._remember({**AS_RECOGNISED, "data.path": kept})
        offered = menus.datasets(self.context.workspace)
        chosen = {data: gr.Dropdown(choices=offered, value=kept), self.parts.upload: None, self.parts.message: ""}
        return {**chosen, **self.read_anew()}

    def read_anew(self) -> Updates:
        """Another dataset: what was corrected by hand was meant for the one before."""
        return self.form.updates(AS_RECOGNISED)

    def fill_from(self, name: str | None) -> Updates:
        """Put a recipe's settings on the screen, and what it is for; model and data only where it names them."""
        if name not in recipe_presets():
            return {self.parts.about: ""}
        own = named_in_preset(name)
        values = {key: value for key, value in flat(load_recipe(name)).items() if key in own or key not in KEPT}
        self._remember(values)
        about = ui_html.note_box(about_preset(name))
        return {**self.form.updates(values), self.parts.about: about, self.parts.message: ""}

    def begin_from(self, key: str | None) -> Updates:
        """Put the settings of the adapter that is to be trained further on the screen, and say which they are."""
        form = self.form
        if not key:
            return {self.parts.message: ""}
        try:
            start = find_starting_adapter(key, self.context.workspace)
        except NibbleError as error:
            return {self.parts.message: explain(error)}
        values = {**start.settings, "lora.init": DEFAULTS["lora.init"], "lora.start_from": key}
        self._remember(values)
        adapter = start.source
        message = f"“{adapter.label}” is trained further as it is: {start.summary()}, over {adapter.model}."
        menu = gr.Dropdown(choices=menus.starts(self.context.workspace), value=key)
        shown = {**form.updates(values), form.fields["lora.start_from"]: menu}
        return {**shown, self.parts.message: ui_html.note_box(message)}

    def remember(self, given: Given) -> None:
        """Keep what stands on the screen, so that a reload finds it again."""
        self._remember(self.form.values(given))

    def _remember(self, values: dict[str, Any]) -> None:
        self.form.keep(self.context.form_file, values)

    def look(self, given: Given) -> Iterator[Updates]:
        """Show one row as the model will see it, then whether this can start. Takes seconds the first time."""
        yield {self.preview.check: ui_html.busy("Checking the model and the data…")}
        try:
            recipe = self.context.recipe(self.form.values(given)).model_dump()
        except NibbleError as error:
            yield {self.preview.check: explain(error)}
            return
        html, _ = self._preview(recipe, given[self.preview.pager.row])
        yield {self.preview.row: html}
        try:
            found = self.session.data.beside("check", recipe=recipe)
            self.session.downloads.offer(recipe["model"], found.get("model", {}).get("download_bytes", 0))
            if found["ok"] and found["data"]["stage"] != "done":  # large: `tick` goes on from here
                self.session.data.await_report(make_recipe(recipe))
            consent = self.consents.show(recipe["model"]) if found.get("needs_consent") else self.consents.hide()
            yield {self.preview.check: check_html.check(found), **consent}
            if found["ok"] and not html:  # it was being read
                yield {self.preview.row: self._preview(recipe, given[self.preview.pager.row])[0]}
        except Exception as error:  # whatever it is, the person is looking here
            yield {self.preview.check: explain(error)}

    def agree(self) -> Updates:
        """Let the code that was shown run; then everything is looked at anew."""
        try:
            return {self.layout.read: f"agreed {self.consents.agree()}", **self.consents.hide()}
        except Exception as error:  # whatever it is, the person is looking here
            return {self.preview.check: explain(error)}

    def turn(self, given: Given) -> Updates:
        """Show another row."""
        try:
            recipe = self.context.recipe(self.form.values(given)).model_dump()
        except NibbleError as error:
            return {self.preview.check: explain(error)}
        html, row = self._preview(recipe, given[self.preview.pager.row])
        return {self.preview.row: html, self.preview.pager.row: row}

    def _preview(self, recipe: dict[str, Any], row: float | None) -> tuple[str, int]:
        wanted = int(row or 1)
        try:
            found = self.session.data.beside("preview", recipe=recipe, row=wanted)
        except NibbleError:  # the check above says the same sentence, once
            return "", wanted
        if "waiting" in found:
            return "", wanted
        shown = row_html.row if found.get("reason") else check_html.preview
        return shown(found), int(found["row"])
