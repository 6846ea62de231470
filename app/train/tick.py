"""What changes on the Train tab from one second to the next: what all browsers share, and what each asks for itself."""

from typing import Any

import gradio as gr

from app.context import Context
from app.data import html as data_html
from app.run_view.layout import PARTS
from app.train import budget_scale, plan_events
from app.train import download as train_download
from app.train.form import SMALLEST_BUDGET
from app.train.layout import TrainLayout
from app.train.session import TrainSession, shown_run
from app.ui import html
from app.ui.updates import Seen, Updates, is_new
from core.runs.device_lock import holder
from core.runs.heartbeat import hanging, stopping
from core.runs.manifest import named_checkpoints
from core.runs.store import ENDED, OPEN
from core.sizes import GIB
from core.system.hardware import device


def shared(layout: TrainLayout) -> dict[str, gr.HTML]:
    """Where `parts` are shown."""
    view, form = layout.run.view, layout.form
    return {**{part: getattr(view, part) for part in PARTS}, "held": form.held, "scale": form.scale}


def outputs(layout: TrainLayout) -> list[Any]:
    """What a tick may change."""
    shown = [layout.welcome, layout.plan, layout.preview.check, layout.read]
    return [*layout.run.buttons(), *shown, *layout.form.download.all()]


def parts(context: Context, session: TrainSession) -> dict[str, str]:
    """The HTML that is the same in all browsers: the run by its parts, who holds the GPU, the budget's scale."""
    run, found = shown_run(context), device()
    nothing = html.empty("No run yet", "Progress, loss and memory appear here once you press Start training.")
    drawn = context.drawings.parts(run) if run is not None else {**dict.fromkeys(PARTS, ""), "head": nothing}
    least, needed = int(SMALLEST_BUDGET * GIB), session.plans.needed_bytes
    scale = budget_scale.html(least, found.total_bytes, found.free_bytes, needed)
    return {**drawn, "held": _held(context), "scale": scale}


def tick(layout: TrainLayout, context: Context, session: TrainSession, seen: Seen) -> Updates:
    """What changed besides since this browser last saw it."""
    updates = _reading(layout, session, seen) | plan_events.tick(layout.plan, session.plans, seen)
    updates |= train_download.tick(session.downloads, layout.form.download, layout.read, seen)
    run = shown_run(context)
    if run is None:
        return updates
    state = run.status().state
    stops = stopping(run) is not None
    ends = stops or hanging(run) is not None
    if is_new(seen, "buttons", (run.id, state, stops, ends)):
        buttons = layout.run
        label = "Remove from queue" if state == "queued" else "Stop"
        updates[buttons.stop] = gr.Button(label, visible=state in OPEN and not stops, interactive=True)
        updates[buttons.end_now] = gr.Button(visible=ends)
        updates[buttons.bell] = gr.Button(visible=state in OPEN)
        cut_short = state in ENDED and state != "finished"
        updates[buttons.resume] = gr.Button(visible=cut_short and bool(named_checkpoints(run.dir / "checkpoints")))
        updates[buttons.chat] = gr.Button(visible=state in ENDED and run.has_adapter)
        updates[buttons.export] = gr.Button(visible=state in ENDED and run.has_adapter)
        updates[buttons.again] = gr.Button(visible=state in ENDED)
        updates[layout.welcome] = gr.Group(visible=False)
    return updates


def _held(context: Context) -> str:
    """Who holds the GPU besides runs, and what a start would do about it."""
    by = holder(context.workspace)
    if by is None or by.kind == "run":
        return ""
    who = by.in_words()
    return html.note_box(f"{who[0].upper()}{who[1:]} is using the GPU. A run that you start waits for it.")


def _reading(layout: TrainLayout, session: TrainSession, seen: Seen) -> Updates:
    """How far large data is read; once it is, `read` changes, which has everything checked again."""
    data = session.data
    if data.awaited != data.turn:
        return {}
    stage = data_html.at_work(data.report) if data.report["stage"] in data_html.AT_WORK else ""
    if not is_new(seen, "reading", (data.turn, stage)):
        return {}
    if not stage:
        return {layout.read: data.turn}
    return {layout.preview.check: html.busy(f"{stage}. You can start now, or open the Data tab.")}
