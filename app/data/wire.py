"""The Data tab: what is in a dataset, before anything is trained on it. The same dataset and model as on Train."""

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from app.context import Context
from app.data import html as data_html
from app.data import layout as data_layout
from app.data.events import DataEvents
from app.data.session import DataSession
from app.ui import menus
from app.ui.form import WORDS, Form
from app.ui.tab import PageParts, Tab
from app.ui.updates import LATEST, ONCE, QUIET, Given, Seen, Updates, is_new, press_button, say_at_once


class DataTab(Tab):
    """The tab, and the dataset that is looked at."""

    name, title = "data", "Data"
    layout: data_layout.DataLayout

    def __init__(self, context: Context) -> None:
        self.context = context
        self.session = DataSession(context.helper.call)

    def events(self, form: Form) -> DataEvents:
        """What happens on a press, here and on the Train tab's `form`."""
        return DataEvents(self.layout, form, self.context, self.session)

    def build(self) -> None:
        """Lay the tab out."""
        self.layout = data_layout.DataLayout()
        self.outputs = self.layout.drawn()

    def wire(self, page: PageParts) -> None:
        """Attach the events."""
        layout, form, events = self.layout, page.form, self.events(page.form)
        known, changed = form.inputs() | layout.inputs(), layout.changed(form)
        path, read_as = layout.fields["data.path"], layout.fields["data.format"]
        typed = [component for component in layout.fields.values() if component not in (path, read_as)]
        # Said by the page itself, so that a press is answered before the server has heard of it.
        at_once = json.dumps(data_html.head({"stage": "starting", "progress": 0.0, "name": ""}))
        for press in (path.input, layout.upload.upload):
            press(None, None, layout.parts["head"], js=f"() => {at_once}", **QUIET)
        path.input(events.choose, known, changed, **LATEST)
        read_as.input(events.read_as, known, changed, **LATEST)
        layout.upload.upload(events.keep, known | {layout.upload}, changed, **QUIET)
        changes = [component.input for component in (*typed, *layout.mapping.inputs())]
        gr.on(changes, events.change, known, changed, **LATEST)
        layout.by_hand.click(events.correct, known, changed, **QUIET)
        for part in layout.parts.values():
            part.click(events.press, known, changed, **QUIET)
        layout.train.click(lambda: gr.Tabs(selected="train"), None, page.tabs, queue=False, **QUIET)
        self._wire_rows(events)

    def _wire_rows(self, events: DataEvents) -> None:
        layout, row = self.layout, self.layout.pager.row
        layout.pager.wire()
        row.change(events.show, row, [layout.parts["row"], layout.parts["mapped"], row, layout.message], **LATEST)
        for key, button in layout.saves.items():
            say_at_once(button.click, layout.saved, "Writing the file…")
            ready = button.click(events.saver(key), None, [layout.download, layout.saved], **ONCE)
            ready.success(None, None, None, js=press_button("nb-download"), **QUIET)

    def selected(self, item: gr.Tab, page: PageParts) -> Callable[..., Any]:
        """It shows what stands on the Train form whenever it comes into sight."""
        outputs = [*self.layout.settings(), *self.layout.parts.values()]
        return item.select(lambda given: self.open(page.form, given), page.form.inputs(), outputs, **QUIET).then

    def open(self, form: Form, given: Given) -> Updates:
        """The Train form's settings, and their dataset looked at."""
        updates = self.events(form).open(given)
        for key, menu in (("model", menus.models), ("data.path", menus.datasets)):
            component = self.layout.fields[key]
            updates[component] = gr.Dropdown(choices=menu(self.context.workspace), value=updates[component])
        return updates

    def tick(self, seen: Seen, *given: Any) -> Updates:
        """What changed since this browser last saw it."""
        layout, session, report = self.layout, self.session, self.session.report
        parts = session.parts()
        if seen.get("turn") != session.turn:  # the press that began this turn has drawn something too
            seen.clear()
            seen["turn"] = session.turn
        updates: Updates = {layout.parts[part]: parts[part] for part in parts if is_new(seen, part, parts[part])}
        known = report["stage"] != "failed" and "usable" in report
        if is_new(seen, "known", known):
            updates |= {layout.viewer: gr.Column(visible=known), layout.saving: gr.Row(visible=known)}
            updates[layout.pager.row] = max(1, session.number)
        columns = [report.get(key) for key in ("columns", "turn_columns", "speakers", "error")]
        if report.get("columns") and is_new(seen, "columns", columns):
            updates |= layout.mapping.choices(report)
        encodings = report.get("encodings") or []
        if is_new(seen, "encodings", encodings):
            updates[layout.fields["data.encoding"]] = gr.Dropdown(choices=_encoding_menu(encodings))
        return updates


def _encoding_menu(offered: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Every encoding; those that the data may be in first, the likeliest before, each with words as they would read."""
    words = {each["encoding"]: " · ".join(each["words"]) for each in offered}
    named = WORDS["data.encoding"]
    first = [(f"{named[name]}: {shown}", name) for name, shown in words.items()]
    others = [(label, name) for name, label in named.items() if name not in words]
    return [others[0], *first, *others[1:]] if first else others
