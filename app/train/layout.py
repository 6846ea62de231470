"""What stands on the Train tab: the form on the left; the plan, the check and the run on the right."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from app.run_view.layout import RunView, build_body, build_head
from app.train import plan_html
from app.train.form import FormParts, PreviewParts, build_form, build_preview

TRY_IT = "Try it: train the starter on a sample (about a minute)"


@dataclass(frozen=True)
class TrainLayout:
    """The components of the tab that events touch."""

    welcome: gr.Group
    try_it: gr.Button
    form: FormParts
    side: gr.Tabs
    plan: gr.HTML
    preview: PreviewParts
    read: gr.State
    run: RunParts


@dataclass(frozen=True)
class RunParts:
    """The run on the right: what is drawn of it, and what can be done with it."""

    view: RunView
    stop: gr.Button
    end_now: gr.Button
    bell: gr.Button
    resume: gr.Button
    chat: gr.Button
    export: gr.Button
    again: gr.Button

    def buttons(self) -> list[gr.Button]:
        """All of its buttons."""
        return [self.stop, self.end_now, self.bell, self.resume, self.chat, self.export, self.again]


def build() -> TrainLayout:
    """Lay the tab out. Nothing is looked up here: the page fills itself when it is opened."""
    with gr.Row(elem_classes="nb-train"):
        with gr.Column(scale=4, min_width=340, elem_classes="nb-form"):
            with gr.Group(visible=False, elem_classes="nb-welcome") as welcome:
                gr.HTML(
                    "<h3>New here?</h3><p>Train a small model to answer like a pirate.</p>",
                    elem_classes="nb-slot",
                )
                try_it = gr.Button(TRY_IT, variant="primary", size="lg")
            form = build_form()
        with (
            gr.Column(scale=7, min_width=420, elem_classes="nb-side"),
            gr.Tabs(selected="check", elem_classes="nb-subtabs") as side,
        ):
            with gr.Tab("Plan", id="check"):
                plan = gr.HTML(plan_html.first(), elem_classes="nb-slot", js_on_load=plan_html.ACT)
                preview = build_preview()
            with gr.Tab("Run", id="run"):
                run = _build_run()
    return TrainLayout(welcome, try_it, form, side, plan, preview, gr.State(0), run)


def _build_run() -> RunParts:
    head = build_head()
    with gr.Row(elem_classes="nb-actions"):
        stop = gr.Button("Stop", variant="stop", visible=False)
        end_now = gr.Button("Force stop", variant="stop", visible=False)
        bell = gr.Button("Notify me when it ends", visible=False, elem_classes="nb-bell")
        resume = gr.Button("Resume", visible=False)
        chat = gr.Button("Chat with it", variant="primary", visible=False)
        export = gr.Button("Export", visible=False)
        again = gr.Button("New run", visible=False)
    return RunParts(build_body(head), stop, end_now, bell, resume, chat, export, again)
