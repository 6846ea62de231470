"""What stands on the Train tab before a run: the form's four steps, and one row of the data as the model sees it."""

from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from app.train import code_consent
from app.train import download as train_download
from app.ui import html
from app.ui.form import DEFAULTS, QUICK, Form, build_advanced, build_field
from app.ui.pager import RowPager, build_pager
from app.ui.upload import drop_area
from core.recipe import help_text

SMALLEST_BUDGET = 0.1


@dataclass(frozen=True)
class FormParts:
    """What stands on the form: the settings, the recipes' menu and what it is about, what is said below Start.

    `scale` is the strip under the budget's slider.
    """

    form: Form
    download: train_download.DownloadParts
    upload: gr.File
    preset: gr.Dropdown
    about: gr.HTML
    scale: gr.HTML
    start: gr.Button
    held: gr.HTML
    message: gr.HTML


def build_form() -> FormParts:
    """Lay the four steps and the Start button out."""
    fields: dict[str, Component] = {}
    with gr.Group(elem_classes="nb-part"):
        gr.HTML(html.step_figure("1", "Model"), elem_classes="nb-slot")
        fields["model"] = gr.Dropdown(
            label="Base model", info=help_text("model"), allow_custom_value=True, value=DEFAULTS["model"]
        )
        download = train_download.build()
    with gr.Group(elem_classes="nb-part"):
        gr.HTML(html.step_figure("2", "Data"), elem_classes="nb-slot")
        fields["data.path"] = gr.Dropdown(
            label="Dataset", info=help_text("data.path"), allow_custom_value=True, value=DEFAULTS["data.path"]
        )
        fields["data.mapping"] = gr.State(DEFAULTS["data.mapping"])
        upload = drop_area()
    with gr.Group(elem_classes="nb-part"):
        gr.HTML(html.step_figure("3", "Adapter"), elem_classes="nb-slot")
        with gr.Row(elem_classes="nb-fields"):
            fields.update({field.key: build_field(field) for field in QUICK if field.key != "budget"})
        with gr.Accordion("Advanced", open=False, elem_classes="nb-advanced"):
            preset = gr.Dropdown(
                label="Load a recipe",
                info="Sets every field from a recipe; the model and dataset only if it names them.",
                choices=[],
                value=None,
            )
            about = gr.HTML(elem_classes="nb-slot")
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
        scale = gr.HTML(elem_classes="nb-slot")
    start = gr.Button("Start training", variant="primary", size="lg", elem_classes="nb-start")
    held = gr.HTML(elem_classes="nb-slot nb-said")
    message = gr.HTML(elem_classes="nb-slot nb-said")
    return FormParts(Form(fields), download, upload, preset, about, scale, start, held, message)


@dataclass(frozen=True)
class PreviewParts:
    """What the check found, the code that a model wants to run, and a row of the data with how to turn to another."""

    check: gr.HTML
    consent: code_consent.ConsentParts
    row: gr.HTML
    pager: RowPager


def build_preview() -> PreviewParts:
    """Lay it out."""
    check = gr.HTML(html.busy("Checking the model and the data…"), elem_classes="nb-slot")
    return PreviewParts(check, code_consent.build(), gr.HTML(elem_classes="nb-slot"), build_pager())
