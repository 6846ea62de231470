"""The Export tab: a run for other programs, proved to answer there as it does here; and adapters from elsewhere."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr

from app.context import Context
from app.export import hub_and_import
from app.export import layout as export_layout
from app.export import llama_cpp as export_llama_cpp
from app.export.events import ExportEvents
from app.export.session import ExportSession
from app.ui.tab import PageParts, Tab
from app.ui.updates import ONCE, QUIET, Seen, Updates


class ExportTab(Tab):
    """The tab, and what the server remembers for it."""

    name, title = "export", "Export"
    layout: export_layout.ExportLayout
    events: ExportEvents

    def __init__(self, context: Context) -> None:
        self.context = context
        self.session = ExportSession()

    def build(self) -> None:
        """Lay the tab out."""
        self.layout = export_layout.build()
        self.outputs = self.layout.ticking()
        self.events = ExportEvents(self.layout, self.context, self.session)

    def wire(self, page: PageParts) -> None:
        """Attach the events."""
        layout, events = self.layout, self.events
        given, changed = layout.inputs(), layout.choices()
        renaming = [layout.run.input, layout.part.input, layout.to.input]
        gr.on(renaming, partial(events.chosen, True), given, changed, **QUIET)
        settings = [each.input for each in layout.settings.values()]
        gr.on(settings, partial(events.chosen, False), given, changed, **QUIET)
        layout.make.click(events.make, given, layout.ticking(), **ONCE)
        layout.stop.click(events.stop, None, layout.ticking(), **QUIET)
        hub_and_import.wire_upload(layout.upload, self.context, self.session.uploads)
        hub_and_import.wire_import(layout.taking, self.context)
        export_llama_cpp.wire(layout.llama_cpp, self.context, self.session.llama_cpp)

    def selected(self, item: gr.Tab, page: PageParts) -> Callable[..., Any]:
        """It offers what can be exported by now, whenever it comes into sight."""
        return item.select(self.events.fill, self.layout.run, self.layout.filled(), **QUIET).then

    def tick(self, seen: Seen, *given: Any) -> Updates:
        """What changed since this browser last saw it."""
        return self.events.tick(seen)
