"""The page: build all tabs, then wire them, first each by itself, then to one another."""

import threading
from collections.abc import Callable
from typing import Any

import gradio as gr

from app.arena.wire import ArenaTab
from app.cards.tab import CardsTab
from app.chat.wire import ChatTab
from app.context import Context
from app.data.wire import DataTab
from app.export.wire import ExportTab
from app.page import strip as page_strip
from app.page.links import wire_links
from app.page.updates import Page, PageUpdates
from app.runs.wire import RunsTab
from app.server.event_validation import CheckedBlocks
from app.system.tab import SystemTab
from app.train.wire import TrainTab
from app.ui.tab import PageParts, Tab
from app.ui.updates import QUIET, Updates

# By when a page that is opened shows what there is.
SHOWN_SECONDS = 3.0


def open_tabs(context: Context) -> tuple[Tab, ...]:
    """Every tab of the page, in their order. Another one is its own package, and its line here."""
    data = DataTab(context)
    return (
        TrainTab(context, data.session),
        data,
        ChatTab(context),
        ArenaTab(context),
        RunsTab(context),
        ExportTab(context),
        CardsTab(),
        SystemTab(context),
    )


def build_page(context: Context, tabs: tuple[Tab, ...]) -> CheckedBlocks:
    """The whole app, ready to launch."""
    with CheckedBlocks(title="Nibble", analytics_enabled=False, fill_width=True) as demo:
        strip = gr.HTML(page_strip.strip("", None, 0), elem_classes="nb-slot")
        items = {}
        with gr.Tabs(selected=tabs[0].name, elem_classes="nb-tabs") as row:
            for tab in tabs:
                with gr.Tab(tab.title, id=tab.name) as items[tab.name]:
                    tab.build()
        form = next(tab.form for tab in tabs if isinstance(tab, TrainTab))
        page = Page(strip, tabs, PageParts(row, form), gr.State({}))
        for tab in tabs:
            tab.wire(page.parts)
        selected = {tab.name: tab.selected(items[tab.name], page.parts) for tab in tabs}
        wire_links(page, context)
        _wire_time(demo, page, context, selected)
    return demo


def _wire_time(demo: CheckedBlocks, page: Page, context: Context, selected: dict[str, Callable[..., Any]]) -> None:
    """Fill the page when it is opened, the run that is at work before all else; then keep it up to date."""
    updates = PageUpdates(page, context)
    demo.in_sight = updates.in_sight

    def fill() -> Updates:
        if context.supervisor.current() is None:
            context.helper.warm()
        else:  # the page is to show the run first, and what imports torch takes the processor for seconds
            threading.Timer(SHOWN_SECONDS, context.helper.warm).start()
        return {component: value for tab in page.tabs for component, value in tab.fill().items()}

    def fill_later() -> Updates:
        return {component: value for tab in page.tabs for component, value in tab.fill_later().items()}

    filled = [component for tab in page.tabs for component in tab.filled]
    later = [component for tab in page.tabs for component in tab.filled_later]
    opened = demo.load(updates.first, updates.given(), updates.all_outputs(), **QUIET)
    opened.then(fill, None, filled, **QUIET).then(fill_later, None, later, **QUIET)
    updates.wire(selected)
