"""What changes on the Train tab from one second to the next: what all browsers share, and what each asks for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from app.context import Context
from app.data import html as data_html
from app.run_view.layout import PARTS
from app.train import budget_scale, plan_events
from app.train import download as train_download
from app.train.events import Updates, shown_run
from app.train.form import SMALLEST_BUDGET
from app.ui import html
from core.runs.device_lock import holder
from core.runs.heartbeat import hanging, stopping
from core.runs.manifest import named_checkpoints
from core.runs.store import ENDED, OPEN
from core.sizes import GIB
from core.system.hardware import device

if TYPE_CHECKING:
    from app.train.layout import TrainTab


def shared(tab: TrainTab) -> dict[str, gr.HTML]:
    """Where `parts` are shown."""
    return {**{part: getattr(tab.view, part) for part in PARTS}, "held": tab.held, "scale": tab.scale}


def outputs(tab: TrainTab) -> list[Any]:
    """What a tick may change."""
    buttons = [tab.stop, tab.end_now, tab.bell, tab.resume, tab.chat, tab.export, tab.again]
    return [*buttons, tab.welcome, tab.plan, tab.check, tab.read, *tab.download.all()]


def parts(context: Context) -> dict[str, str]:
    """The HTML that is the same in all browsers: the run by its parts, who holds the GPU, the budget's scale."""
    run, found = shown_run(context), device()
    nothing = html.empty("No run yet", "Its progress, loss and memory will be drawn here. Press Start training.")
    drawn = context.live.parts(run) if run is not None else {**dict.fromkeys(PARTS, ""), "head": nothing}
    least, needed = int(SMALLEST_BUDGET * GIB), context.plans.needed_bytes
    scale = budget_scale.html(least, found.total_bytes, found.free_bytes, needed)
    return {**drawn, "held": _held(context), "scale": scale}


def tick(tab: TrainTab, context: Context, seen: dict[str, str]) -> Updates:
    """What changed besides since this browser last saw it."""
    updates = _reading(tab, context, seen) | plan_events.tick(tab.plan, context, seen)
    updates |= train_download.tick(context.downloads, tab.download, tab.read, seen)
    run = shown_run(context)
    if run is None:
        return updates
    state = run.status().state
    stops = stopping(run) is not None
    ends = stops or hanging(run) is not None
    mark = f"{run.id} {state} {stops} {ends}"
    if seen.get("buttons") != mark:
        seen["buttons"] = mark
        label = "Take out of the queue" if state == "queued" else "Stop"
        updates[tab.stop] = gr.Button(label, visible=state in OPEN and not stops, interactive=True)
        updates[tab.end_now] = gr.Button(visible=ends)
        updates[tab.bell] = gr.Button(visible=state in OPEN)
        cut_short = state in ENDED and state != "finished"
        updates[tab.resume] = gr.Button(visible=cut_short and bool(named_checkpoints(run.dir / "checkpoints")))
        updates[tab.chat] = gr.Button(visible=state in ENDED and run.has_adapter)
        updates[tab.export] = gr.Button(visible=state in ENDED and run.has_adapter)
        updates[tab.again] = gr.Button(visible=state in ENDED)
        updates[tab.welcome] = gr.Group(visible=False)
    return updates


def _held(context: Context) -> str:
    """Who holds the GPU besides runs, and what a start would do about it."""
    by = holder(context.workspace)
    if by is None or by.kind == "run":
        return ""
    who = by.said()
    return html.note_box(f"{who[0].upper()}{who[1:]} holds the GPU. A run that you start asks for it, and waits.")


def _reading(tab: TrainTab, context: Context, seen: dict[str, str]) -> Updates:
    """How far large data is read; once it is, `read` changes, which has everything checked again."""
    desk = context.data
    if desk.awaited != desk.turn:
        return {}
    at_work = desk.state["stage"] in data_html.AT_WORK
    said = f"{desk.turn} {data_html.at_work(desk.state) if at_work else 'read'}"
    if seen.get("reading") == said:
        return {}
    seen["reading"] = said
    if not at_work:
        return {tab.read: desk.turn}
    return {tab.check: html.busy(f"{data_html.at_work(desk.state)}. You can start already, or look at the Data tab.")}
