"""Runs: every training, what came out of it, and each one opened again."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app import pieces, runs_html
from app.context import Context
from app.run_view import RunView, build_body, build_head
from core.errors import NibbleError, RunError
from core.runs.store import ENDED, OPEN, Run, find_run, list_runs

Updates = dict[Any, Any]
OPEN_ROW = """
const open = (event) => {
  const row = event.target.closest("[data-run]");
  if (row) trigger("click", { run: row.dataset.run });
};
element.addEventListener("click", open);
element.addEventListener("keydown", (event) => { if (event.key === "Enter") open(event); });
"""


@dataclass(frozen=True)
class RunsTab:
    """The components of the tab that events touch. `opened` holds the id of the run below the table."""

    table: gr.HTML
    to_train: gr.Button
    opened: gr.State
    pane: gr.Column
    view: RunView
    stop: gr.Button
    chat: gr.Button
    reuse: gr.Button
    delete: gr.Button
    sure: gr.Row
    delete_now: gr.Button
    keep: gr.Button
    said: gr.HTML
    recipe: gr.HTML


def build() -> RunsTab:
    """Lay the tab out."""
    table = gr.HTML(elem_classes="nb-slot", js_on_load=OPEN_ROW)
    to_train = gr.Button("Train your first adapter", variant="primary", visible=False, elem_classes="nb-narrow")
    opened = gr.State("")
    with gr.Column(visible=False) as pane:
        head = build_head()
        with gr.Row(elem_classes="nb-actions"):
            stop = gr.Button("Stop", variant="stop", visible=False)
            chat = gr.Button("Chat with it", variant="primary", visible=False)
            reuse = gr.Button("Use these settings")
            delete = gr.Button("Delete", variant="stop", visible=False)
        with gr.Row(visible=False, elem_classes="nb-actions nb-sure") as sure:
            gr.HTML("Delete this run with its adapter and its checkpoints?", elem_classes="nb-slot")
            delete_now = gr.Button("Delete for good", variant="stop")
            keep = gr.Button("Keep it")
        said = gr.HTML(elem_classes="nb-slot")
        view = build_body(head)
        recipe = gr.HTML(elem_classes="nb-slot nb-papers")
    return RunsTab(
        table=table,
        to_train=to_train,
        opened=opened,
        pane=pane,
        view=view,
        stop=stop,
        chat=chat,
        reuse=reuse,
        delete=delete,
        sure=sure,
        delete_now=delete_now,
        keep=keep,
        said=said,
        recipe=recipe,
    )


def wire(tab: RunsTab, context: Context) -> None:
    """Attach the tab's events. Those that lead to other tabs are attached where both are known."""
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def open_row(event: gr.EventData) -> str:
        return str(event.run)

    def stop(opened: str) -> str:
        try:
            return pieces.note_box(context.supervisor.stop(find_run(context.workspace, opened)))
        except NibbleError as error:
            return pieces.error_box(str(error))

    def delete(opened: str) -> Updates:
        run = opened_run(context, opened)
        if run is None or run.status().state not in ENDED:
            return {tab.said: pieces.error_box("Only a run that has ended can be deleted. Stop it first.")}
        remove(run)
        return {tab.opened: "", tab.pane: gr.Column(visible=False), tab.sure: gr.Row(visible=False)}

    tab.delete.click(lambda: gr.Row(visible=True), None, tab.sure, queue=False, **quiet)
    tab.keep.click(lambda: gr.Row(visible=False), None, tab.sure, queue=False, **quiet)
    tab.delete_now.click(delete, tab.opened, [tab.said, tab.opened, tab.pane, tab.sure], **quiet)
    tab.table.click(open_row, None, tab.opened, **quiet)
    tab.stop.click(stop, tab.opened, tab.said, **quiet)


def remove(run: Run) -> None:
    """Delete a run that has ended. It leaves the list at once, also where a file of it is held open elsewhere."""
    away = run.dir.with_name(f".deleted-{run.id}")
    run.dir.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def opened_run(context: Context, opened: str) -> Run | None:
    """The run that is open, None where there is none or its folder has gone."""
    if not opened:
        return None
    try:
        return find_run(context.workspace, opened)
    except RunError:
        return None


def tick(tab: RunsTab, context: Context, table: runs_html.Table, opened: str, seen: dict[str, str]) -> Updates:
    """What changed on the Runs tab since this browser last saw it."""
    updates: Updates = {}
    html = table.html(opened)
    if seen.get("table") != html:
        seen["table"] = html
        updates[tab.table] = html
        updates[tab.to_train] = gr.Button(visible=not list_runs(context.workspace))
    run = opened_run(context, opened)
    if run is None:
        return updates
    updates.update(tab.view.changes(context.live.parts(run), seen))
    state = run.status().state
    mark = f"{run.id} {state}"
    if seen.get("opened") != mark:
        seen["opened"] = mark
        updates[tab.pane] = gr.Column(visible=True)
        updates[tab.stop] = gr.Button(visible=state in OPEN)
        updates[tab.chat] = gr.Button(visible=run.has_adapter)
        updates[tab.delete] = gr.Button(visible=state in ENDED)
        updates[tab.sure] = gr.Row(visible=False)
        updates[tab.said] = ""
        updates[tab.recipe] = runs_html.recipe(run)
    return updates
