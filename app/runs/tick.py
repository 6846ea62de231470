"""What changes on the Runs tab from one second to the next: only that is sent."""

from typing import Any

import gradio as gr

from app.context import Context
from app.runs import compare_html
from app.runs import table_html as runs_table_html
from app.runs.events import opened_run
from app.runs.layout import RunsLayout
from app.runs.table_html import MOST_PICKED, RunsTable, TableView
from app.ui.updates import Seen, Updates, is_new
from core.runs.heartbeat import hanging, stopping
from core.runs.manifest import named_checkpoints
from core.runs.queue import order
from core.runs.store import ENDED, OPEN, Run


def tick(layout: RunsLayout, context: Context, table: RunsTable, opened: str, asked: TableView, seen: Seen) -> Updates:
    """What changed on the Runs tab since this browser last saw it."""
    updates = _tick_table(layout, table, opened, asked, seen) | _tick_comparison(layout, context, table, asked, seen)
    run = opened_run(context, opened)
    if run is not None:
        return updates | _tick_run(layout, context, run, seen)
    if seen.pop("opened", None) is not None:  # deleted, here or elsewhere
        seen.pop("state")
        updates[layout.pane] = gr.Column(visible=False)
    return updates


def _tick_table(layout: RunsLayout, table: RunsTable, opened: str, asked: TableView, seen: Seen) -> Updates:
    page = table.page(asked, opened)
    updates: Updates = {}
    before: dict[str, str] = seen.get("rows", {})
    if seen.get("layout") != page.layout:
        seen["changed"] = set()
        updates[layout.table] = page.html
        updates[layout.patch] = ""
        updates[layout.to_train] = gr.Button(visible=not page.runs)
        updates[layout.tools] = gr.Row(visible=bool(page.runs))
    elif changed := {run_id for run_id, html in page.rows.items() if before.get(run_id) != html}:
        # All that changed since the table was drawn: a browser that is busy shows only the last of two patches.
        seen["changed"] = seen["changed"] | changed
        seen["patches"] = seen.get("patches", 0) + 1
        rows = "".join(page.rows[run_id] for run_id in page.rows if run_id in seen["changed"])
        updates[layout.patch] = f'<table data-patch="{seen["patches"]}">{rows}</table>'
    seen["layout"], seen["rows"] = page.layout, page.rows
    if is_new(seen, "picked", asked.picked):
        updates[layout.picks] = gr.Row(visible=bool(asked.picked))
        updates[layout.compare] = gr.Button(_compare_words(len(asked.picked)), interactive=len(asked.picked) > 1)
    return updates


def _compare_words(picked: int) -> str:
    if picked < 2:
        return "Select another run to compare"
    return f"Compare {picked} runs{' (maximum)' if picked == MOST_PICKED else ''}"


def _tick_comparison(layout: RunsLayout, context: Context, table: RunsTable, asked: TableView, seen: Seen) -> Updates:
    rows = {row.run_id: row for row in table.index.rows(runs_table_html.FRESH_SECONDS)} if asked.compared else {}
    runs = [Run(context.workspace.runs / run_id) for run_id in asked.compared if run_id in rows]
    if len(runs) < 2:
        shown = seen.pop("comparison", None)
        return {} if shown is None else {layout.compared: gr.Column(visible=False)}
    mark, drawn = f"{asked.along} {[rows[run.id] for run in runs]}", seen.get("comparison", ("", ""))

    def draw(curves: list[Any]) -> str:
        each = zip(runs, curves, strict=True)
        return compare_html.compare([compare_html.Compared(run, rows[run.id], its) for run, its in each], asked.along)

    html, made_from = context.drawings.compare(runs, drawn[1] if drawn[0] == mark else "", draw)
    seen["comparison"] = (mark, made_from)
    return {layout.comparison: html, layout.compared: gr.Column(visible=True)} if html else {}


def _tick_run(layout: RunsLayout, context: Context, run: Run, seen: Seen) -> Updates:
    updates: Updates = layout.view.changes(context.drawings.parts(run), seen)
    state = run.status().state
    labels = run.labels()
    tags, note = [str(tag) for tag in labels.get("tags") or []], str(labels.get("note") or "")
    if is_new(seen, "noted", (tags, note)):
        updates[layout.noted] = runs_table_html.noted(tags, note)
    if seen.get("opened") != run.id:  # what a person is writing is left alone from then on
        updates[layout.name], updates[layout.tags], updates[layout.note] = run.name, ", ".join(tags), note
    queue = [each.id for each in order(context.workspace)] if state == "queued" else []
    stops = stopping(run) is not None
    ends = stops or hanging(run) is not None
    mark = f"{run.id} {state} {queue} {stops} {ends}"
    if seen.get("state") != mark:
        updates |= _buttons(layout, run, state, queue)
        updates[layout.end_now] = gr.Button(visible=ends)
        if stops:
            updates[layout.stop] = gr.Button(visible=False)
        updates[layout.recipe] = runs_table_html.recipe(run)
    if seen.get("opened") != run.id or seen.get("state") != mark:
        updates[layout.sure], updates[layout.longer] = gr.Row(visible=False), gr.Group(visible=False)
    if seen.get("opened") != run.id:
        updates[layout.message] = ""
    seen["opened"], seen["state"] = run.id, mark
    if state in OPEN or "log" not in seen or seen["log"][0] != mark:
        log = (mark, runs_table_html.log(run))
        if is_new(seen, "log", log):
            updates[layout.log] = log[1]
    return updates


def _buttons(layout: RunsLayout, run: Run, state: str, queue: list[str]) -> Updates:
    can_resume = state in ENDED and bool(named_checkpoints(run.dir / "checkpoints"))
    place = queue.index(run.id) if run.id in queue else None
    return {
        layout.pane: gr.Column(visible=True),
        layout.stop: gr.Button("Remove from queue" if state == "queued" else "Stop", visible=state in OPEN),
        layout.chat: gr.Button(visible=run.has_adapter),
        layout.export: gr.Button(visible=run.has_adapter),
        layout.train_further: gr.Button(visible=run.has_adapter and state in ENDED),
        layout.resume: gr.Button(visible=can_resume),
        layout.sooner: gr.Button(visible=bool(place)),
        layout.later: gr.Button(visible=place is not None and place < len(queue) - 1),
        layout.delete: gr.Button(visible=state in ENDED),
    }
