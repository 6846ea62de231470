"""The page: build all tabs, then wire them, first each by itself, then to one another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.arena import layout as arena_layout
from app.cards import tab as cards
from app.chat import layout as chat_layout
from app.chat.events import conversation_file
from app.context import Context
from app.data import layout as data_layout
from app.data.events import DataEvents
from app.export import layout as export_layout
from app.page import strip as page_strip
from app.page.updates import Ticking
from app.runs import layout as runs_layout
from app.runs.events import opened_run
from app.server.event_validation import CheckedBlocks
from app.system import tab as system
from app.train import layout as train_layout
from app.train.events import TrainEvents
from app.ui.form import flat
from core.errors import NibbleError
from core.runs.store import Run
from core.workspace import write_json

Updates = dict[Any, Any]
# By when a page that is opened shows what there is.
SHOWN_SECONDS = 3.0
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class Page:
    """The tabs, and what stands above them."""

    strip: gr.HTML
    tabs: gr.Tabs
    train: train_layout.TrainTab
    data: data_layout.DataTab
    chat: chat_layout.ChatTab
    arena: arena_layout.ArenaTab
    runs: runs_layout.RunsTab
    export: export_layout.ExportTab
    cards: cards.CardsTab
    system: system.SystemTab
    seen: gr.State


def build_page(context: Context) -> CheckedBlocks:
    """The whole app, ready to launch."""
    with CheckedBlocks(title="Nibble", analytics_enabled=False, fill_width=True) as demo:
        strip = gr.HTML(page_strip.strip("", None, 0), elem_classes="nb-slot")
        with gr.Tabs(selected="train", elem_classes="nb-tabs") as tabs:
            with gr.Tab("Train", id="train") as train_item:
                train_tab = train_layout.build()
            with gr.Tab("Data", id="data") as data_item:
                data_tab = data_layout.build()
            with gr.Tab("Chat", id="chat") as chat_item:
                chat_tab = chat_layout.build()
            with gr.Tab("Arena", id="arena") as arena_item:
                arena_tab = arena_layout.build()
            with gr.Tab("Runs", id="runs") as runs_item:
                runs_tab = runs_layout.build()
            with gr.Tab("Export", id="export") as export_item:
                export_tab = export_layout.build()
            with gr.Tab("Cards", id="cards"):
                cards_tab = cards.build()
            with gr.Tab("System", id="system") as system_item:
                system_tab = system.build()
        page = Page(
            strip=strip,
            tabs=tabs,
            train=train_tab,
            data=data_tab,
            chat=chat_tab,
            arena=arena_tab,
            runs=runs_tab,
            export=export_tab,
            cards=cards_tab,
            system=system_tab,
            seen=gr.State({}),
        )
        train_layout.wire(page.train, context)
        data_layout.wire(page.data, page.train.form, context)
        chat_layout.wire(page.chat, context)
        arena_layout.wire(page.arena, context)
        runs_layout.wire(page.runs, context)
        export_layout.wire(page.export, context)
        cards.wire(page.cards, context)
        system.wire(page.system, context)
        selected = {item.id: item.select for item in (train_item, chat_item, arena_item, runs_item)}
        selected["data"] = _wire_data(data_item, page, context).then
        selected["export"] = export_item.select(
            lambda run: export_layout.fill(page.export, context, run), page.export.run, page.export.filled(), **QUIET
        ).then
        system_item.select(lambda: system.fill(page.system, context), None, _system_outputs(page), **QUIET)
        _wire_across(page, context)
        _wire_time(demo, page, context, selected)
    return demo


def _wire_data(item: gr.Tab, page: Page, context: Context) -> Any:
    """The Data tab shows what stands on the Train form whenever it is opened. Returns that event."""
    form, tab = page.train.form, page.data
    outputs = [*tab.settings(), *tab.parts.values()]
    tab.train.click(lambda: gr.Tabs(selected="train"), None, page.tabs, queue=False, **QUIET)
    return item.select(lambda given: data_layout.fill(tab, form, context, given), form.inputs(), outputs, **QUIET)


def _system_outputs(page: Page) -> list[Any]:
    tab = page.system
    return [tab.who, tab.token, tab.sign_in, tab.sign_out, tab.versions, tab.record, tab.disk, *tab.away.shown()]


def _wire_across(page: Page, context: Context) -> None:
    """Buttons that lead from one tab to another."""

    def talk_to(run: Run | None) -> Updates:
        if run is None or not run.has_adapter:
            return {page.tabs: gr.skip()}
        context.talk.load(f"run:{run.id}")
        return {page.tabs: gr.Tabs(selected="chat"), **chat_layout.choose(page.chat, context, run.id)}

    def export_it(run: Run | None) -> Updates:
        if run is None or not run.has_adapter:
            return {page.tabs: gr.skip()}
        return {page.tabs: gr.Tabs(selected="export"), **export_layout.fill(page.export, context, run.id)}

    def to_data(given: dict[Any, Any]) -> Updates:
        file = conversation_file(context, given[page.chat.settings["system"]] or "")
        kept = DataEvents(page.data, page.train.form, context).keep({**given, page.data.upload: [str(file)]})
        return {page.tabs: gr.Tabs(selected="data"), **kept}

    def reuse(opened: str) -> Updates:
        run = opened_run(context, opened)
        try:
            values = flat(run.recipe()) if run is not None else {}
        except NibbleError:
            values = {}
        if values:
            write_json(context.form_file, values)
        return {page.tabs: gr.Tabs(selected="train"), **page.train.form.updates(values)}

    def train_further(key: str) -> Updates:
        sides = {page.tabs: gr.Tabs(selected="train"), page.train.side: gr.Tabs(selected="check")}
        return {**sides, **TrainEvents(page.train, context).begin_from(key)}

    target = [page.tabs, page.train.side, *page.train.form.inputs(), page.train.said]
    brought = page.export.more
    brought.further.click(lambda name: train_further(f"adapter:{name}"), brought.made, target, **QUIET)
    page.runs.further.click(lambda opened: train_further(f"run:{opened}"), page.runs.opened, target, **QUIET)
    target = [page.tabs, page.chat.talker, page.chat.voice]
    known = page.train.form.inputs() | page.data.inputs()
    page.chat.to_data.click(
        to_data, known | {page.chat.settings["system"]}, [page.tabs, *page.data.changed(page.train.form)], **QUIET
    )
    page.train.chat.click(lambda: talk_to(train_layout.shown_run(context)), None, target, **QUIET)
    page.runs.chat.click(lambda opened: talk_to(opened_run(context, opened)), page.runs.opened, target, **QUIET)
    target = [page.tabs, *page.export.filled()]
    page.train.export.click(lambda: export_it(train_layout.shown_run(context)), None, target, **QUIET)
    page.runs.export.click(lambda opened: export_it(opened_run(context, opened)), page.runs.opened, target, **QUIET)
    page.runs.reuse.click(reuse, page.runs.opened, [page.tabs, *page.train.form.inputs()], **QUIET)
    page.arena.to_train.click(lambda: gr.Tabs(selected="train"), None, page.tabs, **QUIET)
    page.runs.to_train.click(lambda: gr.Tabs(selected="train"), None, page.tabs, **QUIET)


def _wire_time(demo: CheckedBlocks, page: Page, context: Context, selected: dict[str, Callable[..., Any]]) -> None:
    """Fill the page when it is opened, the run that is at work before all else; then keep it up to date."""
    ticking = Ticking(page, context)
    demo.in_sight = ticking.in_sight

    def fill() -> Updates:
        if context.supervisor.current() is None:
            context.helper.warm()
        else:  # the page is to show the run first, and what imports torch takes the processor for seconds
            threading.Timer(SHOWN_SECONDS, context.helper.warm).start()
        return train_layout.fill(page.train, context)

    def fill_others() -> Updates:
        starts = train_layout.fill_starts(page.train, context)
        return {**starts, **chat_layout.fill(page.chat, context), **arena_layout.fill(page.arena, context)}

    filled = [*page.train.form.inputs(), page.train.preset, page.train.welcome, page.train.side]
    others = [
        page.train.form.fields["lora.start_from"],
        *page.chat.filled(),
        *page.arena.form().values(),
        page.arena.question,
    ]
    others += [page.arena.whose, *page.arena.match()]
    opened = demo.load(ticking.first, ticking.given(), ticking.all_outputs(), **QUIET)
    opened.then(fill, None, filled, **QUIET).then(fill_others, None, others, **QUIET)
    ticking.wire(selected)
