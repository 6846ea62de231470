"""What happens on a press of the Data tab. Each parses, asks the desk once, and renders."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr
from gradio.components import Component

from app.context import Context
from app.data.mapping import guess, is_enough
from app.server.event_validation import NO_EVENT, pressed
from app.server.uploads import folder_to_send
from app.ui import html as ui_html
from app.ui import menus
from app.ui.form import AS_RECOGNISED, EMPTY_IS_NONE, Form, explain, possible
from app.ui.upload import keep_files
from core.data.huggingface import looks_like_hub_id
from core.data.samples import find_sample
from core.data.store import safe_name
from core.errors import NibbleError
from core.text.dataset_address import plain_path

if TYPE_CHECKING:
    from app.data.layout import DataTab

Updates = dict[Any, Any]
_NUMBER = re.compile(r"[0-9]{1,9}")


class Save(NamedTuple):
    """A file to take away: the button's label, what is asked of the desk, and how the file's name ends."""

    label: str
    what: str
    ending: str


SAVES = {
    "json": Save("Report (JSON)", "save_report", "report.json"),
    "markdown": Save("Report (Markdown)", "save_report", "report.md"),
    "cleaned": Save("Cleaned data (messages, jsonl)", "save_cleaned", "cleaned.jsonl"),
}


class DataEvents:
    """The callbacks. `form` is the Train tab's; what is set here is set there."""

    def __init__(self, tab: DataTab, form: Form, context: Context) -> None:
        self.tab, self.form, self.context = tab, form, context

    def open(self, given: dict[Component, Any]) -> Updates:
        """Show the settings of the Train form, and look at their dataset."""
        return self._put(self.form.values(given))

    def choose(self, given: dict[Component, Any]) -> Updates:
        """Another dataset: what was corrected by hand was meant for the one before."""
        return self._put({**self._values(given), **AS_RECOGNISED}, keep=True)

    def change(self, given: dict[Component, Any]) -> Updates:
        """Another setting of the same dataset."""
        return self._put(self._values(given), keep=True)

    def read_as(self, given: dict[Component, Any]) -> Updates:
        """Another format; 'mapping' is the one that has to be described."""
        return self.correct(given) if given[self.tab.fields["data.format"]] == "mapping" else self.change(given)

    def correct(self, given: dict[Component, Any]) -> Updates:
        """Name the columns by hand, beginning with what was recognised."""
        values = {**self._values(given), "data.format": "mapping"}
        if not is_enough(values["data.mapping"]):
            values["data.mapping"] = guess(self.context.data.state)
        return self._put(values, keep=True)

    def keep(self, given: dict[Component, Any]) -> Updates:
        """Copy uploaded files into the workspace at once, and look at them."""
        try:
            path = keep_files(self.context.workspace, given[self.tab.upload])
        except NibbleError as error:
            return {self.tab.said: explain(error), self.tab.upload: None, self.tab.parts["head"]: self._head()}
        updates = self._put({**self._values(given), **AS_RECOGNISED, "data.path": path}, keep=True)
        offered = menus.datasets(self.context.workspace)
        for menu in (self.tab.fields["data.path"], self.form.fields["data.path"]):
            updates[menu] = gr.Dropdown(choices=offered, value=path)
        return {**updates, self.tab.upload: None}

    def press(self, given: dict[Component, Any], event: gr.EventData) -> Updates:
        """A button in what is drawn: a row, more rows, columns by hand, a limit, a format, an encoding, a sample."""
        act, value = pressed(event, "act"), pressed(event, "value")
        if act == "row" and _NUMBER.fullmatch(value):
            return {**self.show(float(value)), self.tab.row: int(value)}
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
            return {self.tab.said: ui_html.error_box(NO_EVENT)}
        return self._put({**self._values(given), **changes}, keep=True)

    def _list_rows(self, code: str) -> Updates:
        try:
            self.context.data.list_rows(code)
        except NibbleError as error:
            return {self.tab.said: explain(error)}
        return {self.tab.parts["findings"]: self.context.data.parts()["findings"]}

    def show(self, number: float | None) -> Updates:
        """Show another row; a number that there is no row of becomes the nearest."""
        wanted = int(number or 1)
        try:
            found = self.context.data.show(wanted)
        except NibbleError as error:
            return {self.tab.said: explain(error)}
        parts = self.context.data.parts()
        updates: Updates = {self.tab.parts[part]: parts[part] for part in ("row", "mapped")}
        return updates if found["row"] == wanted else {**updates, self.tab.row: found["row"]}

    def saver(self, key: str) -> Callable[[], Updates]:
        """The callback of one of the buttons that write a file to take away."""
        save = SAVES[key]

        def write() -> Updates:
            name = safe_name(Path(self.context.data.state.get("name") or "data").stem)
            file = folder_to_send() / f"{name} {save.ending}"
            try:
                self.context.data.save(save.what, file)
            except NibbleError as error:
                return {self.tab.saved: explain(error)}
            return {self.tab.download: str(file), self.tab.saved: ui_html.note_box(f"{file.name} is being downloaded.")}

        return write

    def _values(self, given: dict[Component, Any]) -> dict[str, Any]:
        """The Train form's settings with those of this tab laid over."""
        here = {key: given[component] for key, component in self.tab.fields.items()}
        here["model"] = (here["model"] or "").strip()
        here["data.path"] = plain_path(here["data.path"] or "")
        for key in EMPTY_IS_NONE & here.keys():
            here[key] = (here[key] or "").strip() or None
        return {**self.form.values(given), **here, "data.mapping": self.tab.mapping.values(given)}

    def _put(self, values: dict[str, Any], keep: bool = False) -> Updates:
        """Show these settings on both tabs and look at their dataset; with `keep` they survive a reload."""
        updates: Updates = {component: _shown(key, values[key]) for key, component in self.tab.fields.items()}
        updates |= self.tab.mapping.updates(values["data.mapping"])
        updates[self.tab.mapping.group] = gr.Group(visible=values["data.format"] == "mapping")
        updates[self.tab.hub] = gr.Row(visible=looks_like_hub_id(values["data.path"]))
        if keep:
            kept = {key: values[key] for key in (*self.tab.fields, "data.mapping")}
            self.form.keep(self.context.form_file, values)
            updates |= self.form.updates(kept)
        updates[self.tab.said] = self._look(values)
        parts = self.context.data.parts()
        return {**updates, **{self.tab.parts[part]: html for part, html in parts.items()}}

    def _look(self, values: dict[str, Any]) -> str:
        """Have the dataset looked at; what hinders it is returned as HTML."""
        if not values["data.path"]:
            self.context.data.forget()
            return ""
        if values["data.format"] == "mapping" and not is_enough(values["data.mapping"]):
            said = (
                "Choose the columns with the question and the reply, or the list of turns, or plain text; where each "
            )
            said += "row is one turn, also the column that names its conversation."
            return ui_html.note_box(said)
        try:
            self.context.data.look(self.context.recipe(values))
        except NibbleError as error:
            return explain(error)
        return ""

    def _head(self) -> str:
        return self.context.data.parts()["head"]


def _shown(key: str, value: Any) -> Any:
    return "" if value is None and key in EMPTY_IS_NONE else value
