"""How open pages come up to date: all is said once when a page is opened, then what is new by the feed (feed.py).

The feed's look asks every tab, once a second for all pages, whether something changed. What all pages share goes to
them as it is; of the rest only the tab's name, and pages that have it in sight fire that tab's tick.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.arena import layout as arena_layout
from app.chat import layout as chat_layout
from app.context import Context, device_line
from app.data import layout as data_layout
from app.export import layout as export_layout
from app.page import strip
from app.runs import layout as runs_layout
from app.runs import tick as runs_tick
from app.runs.table_html import FRESH_SECONDS, RunsTable, TableView
from app.server.feed import Snapshot
from app.train import tick as train_tick
from core.runs.queue import order
from core.system.hardware import device

if TYPE_CHECKING:
    from app.page.build import Page

Updates = dict[Any, Any]
Seen = dict[str, dict[str, Any]]
TABS = ("train", "data", "chat", "arena", "runs", "export")
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# The page's script (static/nibble.js) sets a part by its name, and fires the tick of a tab by the tab's.
PART = "(window.nibbleParts ??= []).push([{name}, props]);"
EVENTS = {tab: f"tick_{tab}" for tab in TABS}
TICKS = f"const ticks = {json.dumps(EVENTS)}; window.nibbleTick = (tab) => tab in ticks && trigger(ticks[tab]);"


class Ticking:
    """One page's ticks, and the feed's look at the same."""

    def __init__(self, page: Page, context: Context) -> None:
        self.page, self.context = page, context
        self.table = RunsTable(context.workspace)
        self._seen: Seen = {}
        self._runs: tuple[Any, ...] = ()

    def look(self) -> Snapshot:
        """What all pages share as it is now, and the tabs on which something else changed since the last look."""
        rings = {tab for tab in TABS if tab != "runs" and self._changes(tab, self._seen)}
        if self._runs_changed():
            rings.add("runs")
        return Snapshot(self._parts(), rings)

    def in_sight(self) -> dict[int, dict[str, Any]]:
        """The properties, by component, of what all pages share: a page that is opened now shows them at once."""
        parts = self._parts()
        now: dict[int, dict[str, Any]] = {part._id: {"value": parts[name]} for name, part in self.shared().items()}
        at_work = self.context.supervisor.current() is not None
        now[self.page.train.side._id] = {"selected": "run" if at_work else "check"}
        return now

    def tick(self, tab: str) -> Callable[[Seen, str, TableView], Updates]:
        """The callback that says what changed on `tab` since this browser last saw it."""

        def changed(seen: Seen, opened: str, asked: TableView) -> Updates:
            updates = self._changes(tab, seen, opened, asked)
            return {**updates, self.page.seen: seen} if updates else gr.skip()

        return changed

    def first(self, seen: Seen, opened: str, asked: TableView) -> Updates:
        """Everything that a browser has not seen. A run that is at work comes into sight at once."""
        updates: Updates = {self.page.seen: seen}
        for tab in TABS:
            updates |= self._changes(tab, seen, opened, asked)
        if self.context.supervisor.current() is not None:
            updates[self.page.train.side] = gr.Tabs(selected="run")
        return updates

    def outputs(self, tab: str) -> list[Any]:
        """What a tick of `tab` may change."""
        page = self.page
        if tab == "train":
            return [page.seen, *train_tick.outputs(page.train)]
        others: dict[str, Callable[[], list[Any]]] = {
            "data": page.data.drawn,
            "chat": page.chat.watched,
            "arena": page.arena.watched,
            "runs": page.runs.drawn,
            "export": page.export.ticking,
        }
        return [page.seen, *others[tab]()]

    def shared(self) -> dict[str, gr.HTML]:
        """Where the parts that all pages share are shown."""
        return {"strip": self.page.strip, **train_tick.shared(self.page.train)}

    def _changes(self, tab: str, seen: Seen, opened: str = "", asked: TableView | None = None) -> Updates:
        page, context, known = self.page, self.context, seen.setdefault(tab, {})
        if tab == "train":
            return train_tick.tick(page.train, context, known)
        if tab == "data":
            return data_layout.tick(page.data, context, known)
        if tab == "chat":
            return chat_layout.tick(page.chat, context, known)
        if tab == "arena":
            return arena_layout.tick(page.arena, context, known)
        if tab == "runs":
            return runs_tick.tick(page.runs, context, self.table, opened, asked or TableView(), known)
        return export_layout.tick(page.export, context, known)

    def _runs_changed(self) -> bool:
        """Whether any run changed, however a page has sorted them. One that is at work does so all the time."""
        rows = self.table.index.rows(FRESH_SECONDS)
        now = (rows, [run.id for run in order(self.context.workspace)])
        changed = now != self._runs
        self._runs = now
        return changed or self.context.supervisor.current() is not None

    def _parts(self) -> dict[str, str]:
        return {"strip": self._strip(), **train_tick.parts(self.context)}

    def _strip(self) -> str:
        runs_now = self.context.supervisor
        waiting = len(runs_now.queued())
        return strip.strip(device_line(device()), runs_now.current(), waiting, runs_now.ended_last())

    def wire(self, selected: dict[str, Callable[..., Any]]) -> None:
        """Let what changes reach the page. `selected` attaches what follows when a tab comes into sight."""
        page = self.page
        self.context.feed.look = self.look
        for name, part in self.shared().items():
            part.js_on_load = PART.format(name=json.dumps(name))
        page.strip.js_on_load += TICKS
        for tab in TABS:
            for event in (getattr(page.strip, EVENTS[tab]), selected[tab]):
                event(self.tick(tab), self.given(), self.outputs(tab), trigger_mode="always_last", **QUIET)
        runs_now = self.tick("runs"), self.given(), self.outputs("runs")
        page.runs.asked.change(*runs_now, **QUIET)
        page.runs.opened.change(*runs_now, **QUIET).then(None, None, None, js=runs_layout.COME_INTO_SIGHT, **QUIET)

    def given(self) -> list[Any]:
        """What a tick is given."""
        return [self.page.seen, self.page.runs.opened, self.page.runs.asked]

    def all_outputs(self) -> list[Any]:
        """What may change when a page is opened."""
        each = [part for tab in TABS for part in self.outputs(tab)[1:]]
        return [self.page.seen, self.page.train.side, *each]
