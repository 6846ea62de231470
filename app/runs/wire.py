"""The Runs tab: every training, which was best, each one opened again, and several laid over each other."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradio as gr

from app.context import Context
from app.runs import layout as runs_layout
from app.runs import table_html, tick
from app.runs.events import RunsEvents
from app.runs.table_html import RunsTable, TableView
from app.ui.tab import PageParts, Tab
from app.ui.updates import ONCE, QUIET, Seen, Updates, is_new, say_at_once
from core.runs.queue import order


class RunsTab(Tab):
    """The tab. Which run is open, and what is asked of the table, each page has for itself."""

    name, title = "runs", "Runs"
    layout: runs_layout.RunsLayout

    def __init__(self, context: Context) -> None:
        self.context = context
        self.table = RunsTable(context.workspace)

    def build(self) -> None:
        """Lay the tab out."""
        self.layout = runs_layout.RunsLayout()
        self.inputs, self.outputs = [self.layout.opened, self.layout.asked], self.layout.drawn()

    def wire(self, page: PageParts) -> None:
        """Attach the events. Those that lead to other tabs are attached where both are known."""
        layout, events = self.layout, RunsEvents(self.layout, self.context)
        layout.to_train.click(lambda: gr.Tabs(selected="train"), None, page.tabs, **QUIET)
        self._wire_table(events)
        self._wire_resume(events)
        self._wire_delete(events)
        message, opened = layout.message, layout.opened
        layout.stop.click(events.stop, opened, message, **QUIET)
        layout.end_now.click(events.end_now, opened, message, **ONCE)
        layout.sooner.click(lambda opened: events.move(opened, -1), opened, message, **QUIET)
        layout.later.click(lambda opened: events.move(opened, 1), opened, message, **QUIET)
        written = [opened, layout.name, layout.tags, layout.note]
        gr.on([layout.save.click, layout.name.submit, layout.tags.submit], events.label, written, message, **QUIET)

    def _wire_table(self, events: RunsEvents) -> None:
        layout, asked = self.layout, self.layout.asked
        change: dict[str, Any] = {**_ONE_BY_ONE, "outputs": asked}
        layout.table.click(
            events.press, [asked, layout.opened], [asked, layout.opened], trigger_mode="multiple", **_ONE_BY_ONE
        )
        found = [layout.search, layout.state, asked]
        gr.on([layout.search.change, layout.state.change], events.find, found, trigger_mode="always_last", **change)
        layout.compare.click(lambda asked: replace(asked, compared=asked.picked), asked, **change)
        layout.unpick.click(lambda asked: replace(asked, picked=()), asked, **change)
        layout.close.click(lambda asked: replace(asked, compared=()), asked, **change)
        layout.along.input(lambda along, asked: replace(asked, along=along), [layout.along, asked], **change)

    def _wire_resume(self, events: RunsEvents) -> None:
        layout = self.layout
        say_at_once(layout.go_on.click, layout.message, "Checking the last checkpoint…")
        fields = [layout.epochs, layout.steps, layout.rate]
        shown = [layout.longer, layout.sure, *fields, layout.message]
        layout.resume.click(events.ask_to_resume, layout.opened, shown, **QUIET)
        layout.not_now.click(lambda: gr.Group(visible=False), None, layout.longer, queue=False, **QUIET)
        layout.go_on.click(events.resume, [layout.opened, *fields], [layout.message, layout.longer], **ONCE)

    def _wire_delete(self, events: RunsEvents) -> None:
        layout = self.layout
        say_at_once(layout.delete_now.click, layout.message, "Deleting…")
        shown = [layout.sure, layout.longer, layout.question, layout.message]
        layout.delete.click(events.ask_to_delete, layout.opened, shown, **QUIET)
        layout.keep.click(lambda: gr.Row(visible=False), None, layout.sure, queue=False, **QUIET)
        gone = [layout.message, layout.opened, layout.asked, layout.pane, layout.sure]
        layout.delete_now.click(events.delete, [layout.opened, layout.asked], gone, trigger_mode="once", **_ONE_BY_ONE)

    def asked(self, tick_on: Callable[[Any], Any]) -> None:
        """Another view of the table, or another run."""
        tick_on(self.layout.asked.change)
        tick_on(self.layout.opened.change).then(None, None, None, js=runs_layout.COME_INTO_SIGHT, **QUIET)

    def tick(self, seen: Seen, *given: Any) -> Updates:
        """What changed since this browser last saw it."""
        opened, asked = given or ("", TableView())
        return tick.tick(self.layout, self.context, self.table, opened, asked, seen)

    def has_news(self, seen: Seen) -> bool:
        """Whether any run changed, however a page has sorted them. One that is at work does so all the time."""
        now = (self.table.index.rows(table_html.FRESH_SECONDS), [run.id for run in order(self.context.workspace)])
        return is_new(seen, "runs", now) or self.context.supervisor.current() is not None


# Each of these events changes a part of what is asked of the table, and none may undo another's.
_ONE_BY_ONE: dict[str, Any] = {**QUIET, "concurrency_id": "asked", "concurrency_limit": 1}
