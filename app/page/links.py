"""Buttons that lead from one tab to another."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from app.chat.events import conversation_file
from app.chat.wire import ChatTab
from app.context import Context
from app.data.wire import DataTab
from app.export.wire import ExportTab
from app.page.updates import Page
from app.runs.events import opened_run
from app.runs.wire import RunsTab
from app.train.session import shown_run
from app.train.wire import TrainTab
from app.ui.form import flat
from app.ui.updates import QUIET, Given, Updates
from core.errors import NibbleError
from core.runs.store import Run
from core.workspace import write_json


def wire_links(page: Page, context: Context) -> None:
    """Attach them all."""
    _wire_training(page, context)
    _wire_runs(page, context)
    _wire_conversation(page)


def _wire_training(page: Page, context: Context) -> None:
    """To Train: another run that begins from an adapter, or has the settings of a run."""
    row, train, runs = page.parts.tabs, page.tab(TrainTab), page.tab(RunsTab).layout
    taking, message = page.tab(ExportTab).layout.taking, train.layout.form.message

    def train_further(key: str) -> Updates:
        sides = {row: gr.Tabs(selected="train"), train.layout.side: gr.Tabs(selected="check")}
        return {**sides, **train.events.begin_from(key)}

    def reuse(opened: str) -> Updates:
        run = opened_run(context, opened)
        try:
            values = flat(run.recipe()) if run is not None else {}
        except NibbleError:
            values = {}
        if values:
            write_json(context.form_file, values)
        return {row: gr.Tabs(selected="train"), **train.form.updates(values)}

    changed = [row, train.layout.side, *train.form.inputs(), message]
    taking.train_further.click(lambda name: train_further(f"adapter:{name}"), taking.made, changed, **QUIET)
    runs.train_further.click(lambda opened: train_further(f"run:{opened}"), runs.opened, changed, **QUIET)
    runs.reuse.click(reuse, runs.opened, [row, *train.form.inputs()], **QUIET)


def _wire_runs(page: Page, context: Context) -> None:
    """To Chat and to Export: with the run on the Train tab, or the one that is open on the Runs tab."""
    row, chat, export = page.parts.tabs, page.tab(ChatTab), page.tab(ExportTab)
    train, runs = page.tab(TrainTab).layout.run, page.tab(RunsTab).layout

    def wire(tab: str, fill: Callable[[str], Updates], filled: list[Any], buttons: tuple[gr.Button, gr.Button]) -> None:
        def lead(run: Run | None) -> Updates:
            if run is None or not run.has_adapter:
                return {row: gr.skip()}
            return {row: gr.Tabs(selected=tab), **fill(run.id)}

        on_train, on_runs = buttons
        on_train.click(lambda: lead(shown_run(context)), None, [row, *filled], **QUIET)
        on_runs.click(lambda opened: lead(opened_run(context, opened)), runs.opened, [row, *filled], **QUIET)

    wire("chat", chat.choose, [chat.layout.model, chat.layout.answers_from], (train.chat, runs.chat))
    wire("export", export.events.fill, [*export.layout.filled()], (train.export, runs.export))


def _wire_conversation(page: Page) -> None:
    """To Data: the conversation as a dataset."""
    row, form, chat, data = page.parts.tabs, page.parts.form, page.tab(ChatTab), page.tab(DataTab)
    system = chat.layout.settings["system"]

    def to_data(given: Given) -> Updates:
        file = conversation_file(chat.conversation, given[system] or "")
        kept = data.events(form).keep({**given, data.layout.upload: [str(file)]})
        return {row: gr.Tabs(selected="data"), **kept}

    known = form.inputs() | data.layout.inputs() | {system}
    chat.layout.to_data.click(to_data, known, [row, *data.layout.changed(form)], **QUIET)
