"""How open pages come up to date: all is said once when a page is opened, then what is new by the feed (feed.py).

The feed's look asks every tab, once a second for all pages, whether something changed. What all pages share goes to
them as it is; of the rest only the tab's name, and pages that have it in sight fire that tab's tick.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import gradio as gr

from app.context import Context
from app.page import strip
from app.server.feed import Snapshot
from app.train.wire import TrainTab
from app.ui.tab import PageParts, Tab
from app.ui.updates import LATEST, QUIET, Seen, Updates
from core.sizes import GIB
from core.system.hardware import device

T = TypeVar("T", bound=Tab)
# The page's script (static/nibble.js) sets a part by its name, and fires the tick of a tab by the tab's.
PART = "(window.nibbleParts ??= []).push([{name}, props]);"
TICKS = "const ticks = {events}; window.nibbleTick = (tab) => tab in ticks && trigger(ticks[tab]);"


@dataclass(frozen=True)
class Page:
    """The tabs in their order, the line above them, and what each browser has been shown."""

    strip: gr.HTML
    tabs: tuple[Tab, ...]
    parts: PageParts
    seen: gr.State

    def tab(self, kind: type[T]) -> T:
        """The tab of that kind."""
        return next(tab for tab in self.tabs if isinstance(tab, kind))


class PageUpdates:
    """One page's ticks, and the feed's look at the same."""

    def __init__(self, page: Page, context: Context) -> None:
        self.page, self.context = page, context
        self.tabs = [tab for tab in page.tabs if tab.outputs]
        self.side = page.tab(TrainTab).layout.side
        self._seen: dict[str, Seen] = {}

    def look(self) -> Snapshot:
        """What all pages share as it is now, and the tabs on which something else changed since the last look."""
        rings = {tab.name for tab in self.tabs if tab.has_news(self._seen.setdefault(tab.name, {}))}
        return Snapshot(self._parts(), rings)

    def in_sight(self) -> dict[int, dict[str, Any]]:
        """The properties, by component, of what all pages share: a page that is opened now shows them at once."""
        parts = self._parts()
        now: dict[int, dict[str, Any]] = {part._id: {"value": parts[name]} for name, part in self.shared().items()}
        now[self.side._id] = {"selected": "run" if self.context.supervisor.current() is not None else "check"}
        return now

    def tick(self, tab: Tab) -> Callable[..., Updates]:
        """The callback that says what changed on `tab` since this browser last saw it."""

        def changed(seen: dict[str, Seen], *given: Any) -> Updates:
            updates = tab.tick(seen.setdefault(tab.name, {}), *given)
            return {**updates, self.page.seen: seen} if updates else gr.skip()

        return changed

    def first(self, seen: dict[str, Seen], *given: Any) -> Updates:
        """Everything that a browser has not seen. A run that is at work comes into sight at once."""
        updates: Updates = {self.page.seen: seen}
        for tab in self.tabs:
            own, given = given[: len(tab.inputs)], given[len(tab.inputs) :]
            updates |= tab.tick(seen.setdefault(tab.name, {}), *own)
        if self.context.supervisor.current() is not None:
            updates[self.side] = gr.Tabs(selected="run")
        return updates

    def shared(self) -> dict[str, gr.HTML]:
        """Where the parts that all pages share are shown."""
        return {"strip": self.page.strip} | {name: part for tab in self.tabs for name, part in tab.shared.items()}

    def _parts(self) -> dict[str, str]:
        return {"strip": self._strip()} | {name: html for tab in self.tabs for name, html in tab.parts().items()}

    def _strip(self) -> str:
        runs, found = self.context.supervisor, device()
        memory = f"{found.total_bytes / GIB:.0f} GiB, {found.free_bytes / GIB:.1f} GiB free"
        return strip.strip(f"{found.name} · {memory}", runs.current(), len(runs.queued()), runs.ended_last())

    def wire(self, selected: dict[str, Callable[..., Any]]) -> None:
        """Let what changes reach the page. `selected` attaches what follows when a tab comes into sight."""
        self.context.feed.look = self.look
        for name, part in self.shared().items():
            part.js_on_load = PART.format(name=json.dumps(name))
        events = {tab.name: f"tick_{tab.name}" for tab in self.tabs}
        self.page.strip.js_on_load += TICKS.format(events=json.dumps(events))
        for tab in self.tabs:
            changed = self.tick(tab), [self.page.seen, *tab.inputs], [self.page.seen, *tab.outputs]
            for event in (getattr(self.page.strip, events[tab.name]), selected[tab.name]):
                event(*changed, **LATEST)
            tab.asked(partial(_attach, changed))

    def given(self) -> list[Any]:
        """What is given when a page is opened."""
        return [self.page.seen, *(part for tab in self.tabs for part in tab.inputs)]

    def all_outputs(self) -> list[Any]:
        """What may change when a page is opened."""
        return [self.page.seen, self.side, *(part for tab in self.tabs for part in tab.outputs)]


def _attach(changed: Sequence[Any], event: Callable[..., Any]) -> Any:
    return event(*changed, **QUIET)
