"""What happens on a press of the Data tab. Each parses, asks the session once, and renders."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from app.context import Context
from app.data.layout import SAVES, DataLayout
from app.data.mapping import guess, is_enough
from app.data.session import DataSession
from app.server.event_validation import NO_EVENT, pressed
from app.server.uploads import folder_to_send
from app.ui import html as ui_html
from app.ui import menus
from app.ui.form import AS_RECOGNISED, EMPTY_IS_NONE, Form, explain, possible
from app.ui.updates import Given, Updates
from app.ui.upload import keep_files
from core.data.huggingface import looks_like_hub_id
from core.data.samples import find_sample
from core.data.store import safe_name
from core.errors import NibbleError
from core.text.dataset_address import plain_path

_NUMBER = re.compile(r"[0-9]{1,9}")


class DataEvents:
    """The callbacks. `form` is the Train tab's; what is set here is set there."""

    def __init__(self, layout: DataLayout, form: Form, context: Context, session: DataSession) -> None:
        self.layout, self.form, self.context, self.session = layout, form, context, session

    def open(self, given: Given) -> Updates:
        """Show the settings of the Train form, and look at their dataset."""
        return self._put(self.form.values(given))

    def choose(self, given: Given) -> Updates:
        """Another dataset: what was corrected by hand was meant for the one before."""
        return self._put({**self._values(given), **AS_RECOGNISED}, keep=True)

    def change(self, given: Given) -> Updates:
        """Another setting of the same dataset."""
        return self._put(self._values(given), keep=True)

    def read_as(self, given: Given) -> Updates:
        """Another format; 'mapping' is the one that must be described."""
        return self.correct(given) if given[self.layout.fields["data.format"]] == "mapping" else self.change(given)

    def correct(self, given: Given) -> Updates:
        """Name the columns by hand, beginning with what was recognised."""
        values = {**self._values(given), "data.format": "mapping"}
        if not is_enough(values["data.mapping"]):
            values["data.mapping"] = guess(self.session.report)
        return self._put(values, keep=True)

    def keep(self, given: Given) -> Updates:
        """Copy uploaded files into the workspace at once, and look at them."""
        try:
            path = keep_files(self.context.workspace, given[self.layout.upload])
        except NibbleError as error:
            head = {self.layout.parts["head"]: self.session.parts()["head"]}
            return {self.layout.message: explain(error), self.layout.upload: None, **head}
        updates = self._put({**self._values(given), **AS_RECOGNISED, "data.path": path}, keep=True)
        offered = menus.datasets(self.context.workspace)
        for menu in (self.layout.fields["data.path"], self.form.fields["data.path"]):
            updates[menu] = gr.Dropdown(choices=offered, value=path)
        return {**updates, self.layout.upload: None}

    def press(self, given: Given, event: gr.EventData) -> Updates:
        """A button in what is drawn: a row, more rows, columns by hand, a limit, a format, an encoding, a sample."""
        act, value = pressed(event, "act"), pressed(event, "value")
        if act == "row" and _NUMBER.fullmatch(value):
            return {**self.show(float(value)), self.layout.pager.row: int(value)}
        if act == "more":
            return self._list_rows(value)
        if act == "by hand":
            return self.correct(given)
        changes: dict[str, Any] = {}
        if act == "limit" and _NUMBER.fullmatch(value):
            changes = {"data.max_length": int(value)}
        elif act in ("format", "encoding"):
            changes = {f"data.{act}": value}
        elif act == "sample" and find_sample(value) is not None:
            changes = {**AS_RECOGNISED, "data.path": value}
        if not changes or possible(changes) != changes:
            return {self.layout.message: ui_html.error_box(NO_EVENT)}
        return self._put({**self._values(given), **changes}, keep=True)

    def _list_rows(self, code: str) -> Updates:
        try:
            self.session.list_rows(code)
        except NibbleError as error:
            return {self.layout.message: explain(error)}
        return {self.layout.parts["findings"]: self.session.parts()["findings"]}

    def show(self, number: float | None) -> Updates:
        """Show another row; a number that there is no row of becomes the nearest."""
        wanted = int(number or 1)
        try:
            found = self.session.show_row(wanted)
        except NibbleError as error:
            return {self.layout.message: explain(error)}
        parts = self.session.parts()
        updates: Updates = {self.layout.parts[part]: parts[part] for part in ("row", "mapped")}
        return updates if found["row"] == wanted else {**updates, self.layout.pager.row: found["row"]}

    def saver(self, key: str) -> Callable[[], Updates]:
        """The callback of one of the buttons that write a file to take away."""
        save = SAVES[key]

        def write() -> Updates:
            name = safe_name(Path(self.session.report.get("name") or "data").stem)
            file = folder_to_send() / f"{name} {save.ending}"
            try:
                self.session.save(save.what, file)
            except NibbleError as error:
                return {self.layout.saved: explain(error)}
            return {
                self.layout.download: str(file),
                self.layout.saved: ui_html.note_box(f"{file.name} is being downloaded."),
            }

        return write

    def _values(self, given: Given) -> dict[str, Any]:
        """The Train form's settings with those of this tab laid over."""
        here = {key: given[component] for key, component in self.layout.fields.items()}
        here["model"] = (here["model"] or "").strip()
        here["data.path"] = plain_path(here["data.path"] or "")
        for key in EMPTY_IS_NONE & here.keys():
            here[key] = (here[key] or "").strip() or None
        return {**self.form.values(given), **here, "data.mapping": self.layout.mapping.values(given)}

    def _put(self, values: dict[str, Any], keep: bool = False) -> Updates:
        """Show these settings on both tabs and look at their dataset; with `keep` they survive a reload."""
        updates: Updates = Form(self.layout.fields).updates(values)
        updates |= self.layout.mapping.updates(values["data.mapping"])
        updates[self.layout.mapping.group] = gr.Group(visible=values["data.format"] == "mapping")
        updates[self.layout.hub] = gr.Row(visible=looks_like_hub_id(values["data.path"]))
        if keep:
            kept = {key: values[key] for key in (*self.layout.fields, "data.mapping")}
            self.form.keep(self.context.form_file, values)
            updates |= self.form.updates(kept)
        updates[self.layout.message] = self._look(values)
        parts = self.session.parts()
        return {**updates, **{self.layout.parts[part]: html for part, html in parts.items()}}

    def _look(self, values: dict[str, Any]) -> str:
        """Have the dataset looked at; what hinders it is returned as HTML."""
        if not values["data.path"]:
            self.session.forget()
            return ""
        if values["data.format"] == "mapping" and not is_enough(values["data.mapping"]):
            return ui_html.note_box(
                "Choose the columns with the prompt and the reply, the list of turns, or plain text. If each "
                "row is one turn, also choose the column that names its conversation."
            )
        try:
            self.session.look(self.context.recipe(values))
        except NibbleError as error:
            return explain(error)
        return ""
