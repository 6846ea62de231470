"""What stands on the Train tab: the form on the left; the plan, the check and the run on the right."""

import gradio as gr

from app.run_view.layout import RunView
from app.train import plan_html
from app.train.form import FormParts, PreviewParts

TRY_IT = "Try it: train the starter on a sample (about a minute)"


class RunParts:
    """The run on the right: what is drawn of it, and what can be done with it."""

    def __init__(self) -> None:
        head = gr.HTML(elem_classes="nb-slot")
        with gr.Row(elem_classes="nb-actions"):
            self.stop = gr.Button("Stop", variant="stop", visible=False)
            self.end_now = gr.Button("Force stop", variant="stop", visible=False)
            self.bell = gr.Button("Notify me when it ends", visible=False, elem_classes="nb-bell")
            self.resume = gr.Button("Resume", visible=False)
            self.chat = gr.Button("Chat with it", variant="primary", visible=False)
            self.export = gr.Button("Export", visible=False)
            self.again = gr.Button("New run", visible=False)
        self.view = RunView(head)

    def buttons(self) -> list[gr.Button]:
        """All of its buttons."""
        return [self.stop, self.end_now, self.bell, self.resume, self.chat, self.export, self.again]


class TrainLayout:
    """The components of the tab that events touch."""

    def __init__(self) -> None:
        with gr.Row(elem_classes="nb-train"):
            with gr.Column(scale=4, min_width=340, elem_classes="nb-form"):
                with gr.Group(visible=False, elem_classes="nb-welcome") as self.welcome:
                    gr.HTML(
                        "<h3>New here?</h3><p>Train a small model to answer like a pirate.</p>",
                        elem_classes="nb-slot",
                    )
                    self.try_it = gr.Button(TRY_IT, variant="primary", size="lg")
                self.form = FormParts()
            with (
                gr.Column(scale=7, min_width=420, elem_classes="nb-side"),
                gr.Tabs(selected="check", elem_classes="nb-subtabs") as self.side,
            ):
                with gr.Tab("Plan", id="check"):
                    self.plan = gr.HTML(plan_html.first(), elem_classes="nb-slot", js_on_load=plan_html.ACT)
                    self.preview = PreviewParts()
                with gr.Tab("Run", id="run"):
                    self.run = RunParts()
        self.read = gr.State(0)
