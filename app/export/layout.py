"""What stands on the Export tab: a run and its format, the export under way, and what is beside it."""

from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from app.export import html as export_html
from app.export import hub_and_import
from app.export import llama_cpp as export_llama_cpp
from app.export.hub_and_import import ImportPart, UploadPart
from app.export.llama_cpp import LlamaCppPart
from core.export.formats.registry import FORMATS
from core.export.shared.options import SETTINGS, ExportSetting

PARTS = "The final one, the best one by evaluation loss, or a checkpoint."


@dataclass(frozen=True)
class ExportLayout:
    """The components of the tab that events touch; `settings` by the field of ExportOptions."""

    empty: gr.HTML
    run: gr.Dropdown
    part: gr.Dropdown
    to: gr.Radio
    gets: gr.HTML
    settings: dict[str, gr.Radio | gr.Dropdown | gr.Checkbox]
    llama_cpp: LlamaCppPart
    out: gr.Textbox
    make: gr.Button
    stop: gr.Button
    message: gr.HTML
    state: gr.HTML
    earlier: gr.HTML
    upload: UploadPart
    taking: ImportPart

    def inputs(self) -> set[Component]:
        """For an event's `inputs`: the callback gets one dict of values by component."""
        return {self.run, self.part, self.to, *self.settings.values(), self.out}

    def choices(self) -> list[Component]:
        """What changes with the run and the format."""
        return [self.part, self.gets, *self.settings.values(), *self.llama_cpp.all(), self.out]

    def ticking(self) -> list[Component]:
        """What changes by itself."""
        beside = [*self.llama_cpp.ticking(), *self.upload.ticking()]
        return [self.state, self.message, self.earlier, self.stop, self.make, *beside]

    def filled(self) -> list[Component]:
        """What is set whenever the tab is opened."""
        return [self.empty, self.run, self.taking.base, *self.choices()]


def build() -> ExportLayout:
    """Lay the tab out."""
    with gr.Row(elem_classes="nb-form"):
        with gr.Column(scale=5, min_width=420):
            empty = gr.HTML(elem_classes="nb-slot nb-said")
            with gr.Group(elem_classes="nb-part"):
                run = gr.Dropdown(label="Run", choices=[], info="Runs that have an adapter, newest first.")
                part = gr.Dropdown(label="Checkpoint", choices=[], info=PARTS, visible=False)
                to = gr.Radio([(each.title, each.name) for each in FORMATS], value=FORMATS[0].name, label="Format")
                gets = gr.HTML(elem_classes="nb-slot")
            with gr.Group(elem_classes="nb-part"):
                settings = {each.field: _component(each) for each in SETTINGS}
                llama_cpp = export_llama_cpp.build()
                out = gr.Textbox(label="Folder", info="On the machine where Nibble runs. Must be new or empty.")
            with gr.Row(elem_classes="nb-actions"):
                make = gr.Button("Export", variant="primary")
                stop = gr.Button("Stop", variant="stop", visible=False)
            message = gr.HTML(elem_classes="nb-slot nb-said")
            taking = hub_and_import.build_import()
        with gr.Column(scale=6, min_width=420):
            state = gr.HTML(export_html.NOTHING, elem_classes="nb-slot")
            upload = hub_and_import.build_upload()
            earlier = gr.HTML(elem_classes="nb-slot")
    shown = (make, stop, message, state, earlier, upload, taking)
    return ExportLayout(empty, run, part, to, gets, settings, llama_cpp, out, *shown)


def _component(setting: ExportSetting) -> gr.Radio | gr.Dropdown | gr.Checkbox:
    if not setting.choices:
        return gr.Checkbox(False, label=setting.label, info=setting.info)
    choices = [(label, value) for value, label in setting.choices.items()]
    kind = gr.Radio if len(choices) == 2 else gr.Dropdown
    return kind(choices, value=choices[0][1], label=setting.label, info=setting.info)
