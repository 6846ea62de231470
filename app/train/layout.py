"""Train: what to train on the left, what will be trained on and how it goes on the right."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.context import Context
from app.run_view.layout import RunView, build_body, build_head
from app.train import code_consent, plan_events, plan_html
from app.train import download as train_download
from app.train.events import TrainEvents, Updates, shown_run
from app.train.form import SMALLEST_BUDGET, build_form, build_preview
from app.ui import html
from app.ui import menus as ui_menus
from app.ui.form import AS_RECOGNISED, DEFAULTS, Form
from core.runs.store import OPEN
from core.sizes import GIB
from core.system.hardware import device
from core.workspace import read_json

TRY_IT = "Try it: train the starter on a sample (about a minute)"
CHECKED_BY = (
    "model",
    "data.path",
    "data.format",
    "data.mapping",
    "data.encoding",
    "data.split",
    "data.config",
    "data.named_splits",
    "data.train_on",
    "data.template",
    "data.generation_prompt",
    "data.system",
    "data.join_turns",
    "data.max_length",
    "data.eval_fraction",
    "lora.rank",
    "lora.targets",
    "lora.dora",
    "lora.init",
    "lora.start_from",
    "lora.extra_modules",
    "budget",
    "quantization.bits",
    "quantization.type",
    "quantization.double",
    "train.epochs",
    "train.max_steps",
    "train.effective_batch",
    "train.optimizer",
    "train.weight_decay",
)


@dataclass(frozen=True)
class TrainTab:
    """The components of the tab that events touch."""

    welcome: gr.Group
    try_it: gr.Button
    form: Form
    download: train_download.DownloadParts
    upload: gr.File
    preset: gr.Dropdown
    about: gr.HTML
    scale: gr.HTML
    start: gr.Button
    held: gr.HTML
    said: gr.HTML
    side: gr.Tabs
    plan: gr.HTML
    check: gr.HTML
    consent: code_consent.ConsentParts
    preview: gr.HTML
    row: gr.Number
    before: gr.Button
    after: gr.Button
    read: gr.State
    view: RunView
    stop: gr.Button
    end_now: gr.Button
    bell: gr.Button
    resume: gr.Button
    chat: gr.Button
    export: gr.Button
    again: gr.Button


def build() -> TrainTab:
    """Lay the tab out. Nothing is looked up here: the page fills itself when it is opened."""
    with gr.Row(elem_classes="nb-train"):
        with gr.Column(scale=4, min_width=340, elem_classes="nb-form"):
            with gr.Group(visible=False, elem_classes="nb-welcome") as welcome:
                gr.HTML(
                    "<h3>First time here?</h3><p>Watch a small model learn to talk like a pirate.</p>",
                    elem_classes="nb-slot",
                )
                try_it = gr.Button(TRY_IT, variant="primary", size="lg")
            parts = build_form()
        with (
            gr.Column(scale=7, min_width=420, elem_classes="nb-side"),
            gr.Tabs(selected="check", elem_classes="nb-subtabs") as side,
        ):
            with gr.Tab("Before the start", id="check"):
                plan = gr.HTML(plan_html.first(), elem_classes="nb-slot", js_on_load=plan_html.ACT)
                check, consent_parts, preview, row, before, after = build_preview()
            with gr.Tab("Run", id="run"):
                head = build_head()
                with gr.Row(elem_classes="nb-actions"):
                    stop = gr.Button("Stop", variant="stop", visible=False)
                    end_now = gr.Button("End it now", variant="stop", visible=False)
                    bell = gr.Button("Tell me when it ends", visible=False, elem_classes="nb-bell")
                    resume = gr.Button("Resume", visible=False)
                    chat = gr.Button("Chat with it", variant="primary", visible=False)
                    export = gr.Button("Export", visible=False)
                    again = gr.Button("Set up another run", visible=False)
                view = build_body(head)
    return TrainTab(
        welcome=welcome,
        try_it=try_it,
        form=Form(parts.fields),
        download=parts.download,
        upload=parts.upload,
        preset=parts.preset,
        about=parts.about,
        scale=parts.scale,
        start=parts.start,
        held=parts.held,
        said=parts.said,
        side=side,
        plan=plan,
        check=check,
        consent=consent_parts,
        preview=preview,
        row=row,
        before=before,
        after=after,
        read=gr.State(0),
        view=view,
        stop=stop,
        end_now=end_now,
        bell=bell,
        resume=resume,
        chat=chat,
        export=export,
        again=again,
    )


def wire(tab: TrainTab, context: Context) -> None:
    """Attach the tab's events. Those that lead to other tabs are attached where both are known."""
    events = TrainEvents(tab, context)
    form = tab.form.inputs()
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    started = [tab.said, tab.side, tab.welcome, *form]
    # Said by the page itself, so that a press is answered before the server has heard of it.
    for button, answer in (
        (tab.start, "Starting…"),
        (tab.try_it, "Starting…"),
        (tab.stop, "Asking it to stop…"),
        (tab.end_now, "Ending it…"),
        (tab.resume, "Starting…"),
    ):
        button.click(None, None, tab.said, js=f"() => {json.dumps(html.busy(answer))}", **quiet)
    tab.start.click(events.start, form, started, trigger_mode="once", **quiet)
    tab.try_it.click(events.try_it, None, started, trigger_mode="once", **quiet)
    as_read = [tab.form.fields[key] for key in AS_RECOGNISED]
    tab.upload.upload(events.keep, tab.upload, [tab.form.fields["data.path"], *as_read, tab.upload, tab.said], **quiet)
    tab.form.fields["data.path"].input(events.read_anew, None, as_read, queue=False, **quiet)
    begun = tab.form.fields["lora.start_from"].input
    begun(events.begin_from, tab.form.fields["lora.start_from"], [*form, tab.said], **quiet)
    tab.preset.input(events.fill_from, tab.preset, [*form, tab.about, tab.said], **quiet)
    typed = [component.input for component in tab.form.fields.values() if not isinstance(component, gr.State)]
    gr.on(typed, events.remember, form, None, trigger_mode="always_last", **quiet)
    looked_at = [tab.form.fields[key].change for key in CHECKED_BY]
    looked_at.append(tab.read.change)
    gr.on(
        looked_at,
        events.look,
        form | {tab.row},
        [tab.check, tab.preview, *tab.consent.all()],
        trigger_mode="always_last",
        **quiet,
    )
    tab.consent.agree.click(events.agree, None, [tab.check, tab.read, *tab.consent.all()], trigger_mode="once", **quiet)
    planning = plan_events.PlanEvents(tab.form, tab.said, context)
    planned = [component.change for component in tab.form.fields.values()] + [tab.read.change]
    gr.on(planned, planning.look, form, tab.plan, trigger_mode="always_last", **quiet)
    tab.plan.click(planning.use, None, [*form, tab.said], **quiet)
    shown = [tab.preview, tab.row, tab.check]
    tab.before.click(lambda row: max(1, (row or 1) - 1), tab.row, tab.row, queue=False, **quiet)
    tab.after.click(lambda row: (row or 0) + 1, tab.row, tab.row, queue=False, **quiet)
    tab.row.change(events.turn, form | {tab.row}, shown, trigger_mode="always_last", **quiet)
    tab.download.button.click(events.download, None, tab.download.all(), queue=False, **quiet)
    tab.stop.click(events.stop, None, [tab.said, tab.stop], queue=False, **quiet)
    tab.end_now.click(events.end_now, None, tab.said, trigger_mode="once", **quiet)
    tab.resume.click(events.resume, None, tab.said, trigger_mode="once", **quiet)
    tab.again.click(lambda: gr.Tabs(selected="check"), None, tab.side, queue=False, **quiet)


def fill(tab: TrainTab, context: Context) -> Updates:
    """Everything that the page looks up when it is opened: menus, the device's size, the last settings."""
    found = device()
    total, free = found.total_bytes / GIB, found.free_bytes / GIB
    menus = {
        tab.form.fields["model"]: ui_menus.models(context.workspace),
        tab.form.fields["data.path"]: ui_menus.datasets(context.workspace),
    }
    run = shown_run(context)
    # The settings are read last: a file that was dropped meanwhile is in them already.
    # All of them are sent: a number that is empty from the start would be shown as 0.
    kept = {**DEFAULTS, **(read_json(context.form_file) or {})}
    budget = tab.form.fields["budget"]
    updates: Updates = tab.form.updates(kept)
    for component, menu in menus.items():
        updates[component] = gr.Dropdown(choices=menu, value=updates.get(component, component.value))
    share = f"In GiB, of {total:.1f} on this {'machine' if found.kind == 'cpu' else 'card'}; {free:.1f} are free now."
    most = math.floor(total * 10) / 10
    wanted = updates.get(budget)
    amount = min(wanted if isinstance(wanted, (int, float)) else free, most)
    updates[budget] = gr.Slider(value=max(round(amount, 2), SMALLEST_BUDGET), maximum=most, info=share)
    updates[tab.preset] = gr.Dropdown(choices=ui_menus.recipes())
    updates[tab.welcome] = gr.Group(visible=run is None)
    if run is not None and run.status().state in OPEN:  # else it is left where the person may have put it by now
        updates[tab.side] = gr.Tabs(selected="run")
    return updates


def fill_starts(tab: TrainTab, context: Context) -> Updates:
    """The adapters that can be trained further; with many runs they take a while to be found."""
    return {tab.form.fields["lora.start_from"]: gr.Dropdown(choices=ui_menus.starts(context.workspace))}
