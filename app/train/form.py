"""What stands on the Train tab before a run: the form's four steps, and one row of the data as the model sees it."""

import gradio as gr
from gradio.components import Component

from app.train import code_consent
from app.train import download as train_download
from app.ui import html
from app.ui.form import DEFAULTS, QUICK, Form, build_advanced, build_field, build_menu
from app.ui.pager import RowPager
from app.ui.upload import drop_area

SMALLEST_BUDGET = 0.1


class FormParts:
    """What stands on the form: the settings, the recipes' menu and what it is about, the `message` below Start.

    `scale` is the strip under the budget's slider.
    """

    def __init__(self) -> None:
        fields: dict[str, Component] = {}
        with gr.Group(elem_classes="nb-part"):
            gr.HTML(html.step_figure("1", "Model"), elem_classes="nb-slot")
            fields["model"] = build_menu("Base model", "model")
            self.download = train_download.DownloadParts()
        with gr.Group(elem_classes="nb-part"):
            gr.HTML(html.step_figure("2", "Data"), elem_classes="nb-slot")
            fields["data.path"] = build_menu("Dataset", "data.path")
            fields["data.mapping"] = gr.State(DEFAULTS["data.mapping"])
            self.upload = drop_area()
        with gr.Group(elem_classes="nb-part"):
            gr.HTML(html.step_figure("3", "Adapter"), elem_classes="nb-slot")
            with gr.Row(elem_classes="nb-fields"):
                fields.update({field.key: build_field(field) for field in QUICK if field.key != "budget"})
            with gr.Accordion("Advanced", open=False, elem_classes="nb-advanced"):
                self.preset = gr.Dropdown(
                    label="Load a recipe",
                    info="Sets every field from a recipe; the model and dataset only if it names them.",
                    choices=[],
                    value=None,
                )
                self.about = gr.HTML(elem_classes="nb-slot")
                fields.update(build_advanced())
        with gr.Group(elem_classes="nb-part"):
            gr.HTML(html.step_figure("4", "Memory"), elem_classes="nb-slot")
            fields["budget"] = gr.Slider(
                SMALLEST_BUDGET,
                1024,
                value=SMALLEST_BUDGET,
                step=0.01,
                label="Memory budget",
                info="In GiB.",
                elem_classes="nb-budget",
            )
            self.scale = gr.HTML(elem_classes="nb-slot")
        self.start = gr.Button("Start training", variant="primary", size="lg", elem_classes="nb-start")
        self.held = gr.HTML(elem_classes="nb-slot nb-said")
        self.message = gr.HTML(elem_classes="nb-slot nb-said")
        self.form = Form(fields)


class PreviewParts:
    """What the check found, the code that a model wants to run, and a row of the data with how to turn to another."""

    def __init__(self) -> None:
        self.check = gr.HTML(html.busy("Checking the model and the data…"), elem_classes="nb-slot")
        self.consent = code_consent.ConsentParts()
        self.row = gr.HTML(elem_classes="nb-slot")
        self.pager = RowPager()
