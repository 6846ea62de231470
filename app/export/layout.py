"""What stands on the Export tab: a run and its format, the export under way, and what is beside it."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from app.export import html as export_html
from app.export import hub_and_import
from app.export import llama_cpp as export_llama_cpp
from app.export.hub_and_import import ImportPart, UploadPart
from app.export.llama_cpp import LlamaCppPart

PARTS = "The final one, the best one by evaluation loss, or a checkpoint."
ONTO = [
    ("The 4-bit weights used in training: replies match the chat", "dequantised"),
    ("The original weights: more precise, but not the ones used in training", "original"),
]
PRECISIONS = [
    ("Same as the base model", "auto"),
    ("bfloat16", "bfloat16"),
    ("float16", "float16"),
    ("float32", "float32"),
]
TYPES = [("f16", "f16"), ("bf16", "bf16"), ("q8_0: half the size, slightly less precise", "q8_0"), ("f32", "f32")]


@dataclass(frozen=True)
class ExportLayout:
    """The components of the tab that events touch. `made` is the id of the export that is shown."""

    empty: gr.HTML
    run: gr.Dropdown
    part: gr.Dropdown
    to: gr.Radio
    gets: gr.HTML
    onto: gr.Radio
    precision: gr.Dropdown
    gguf_type: gr.Dropdown
    apart: gr.Checkbox
    llama_cpp: LlamaCppPart
    out: gr.Textbox
    make: gr.Button
    stop: gr.Button
    said: gr.HTML
    state: gr.HTML
    earlier: gr.HTML
    upload: UploadPart
    taking: ImportPart

    def inputs(self) -> set[Component]:
        """For an event's `inputs`: the callback gets one dict of values by component."""
        return {self.run, self.part, self.to, self.onto, self.precision, self.gguf_type, self.apart, self.out}

    def choices(self) -> list[Component]:
        """What changes with the run and the format."""
        kinds = [self.onto, self.precision, self.gguf_type, self.apart]
        return [self.part, self.gets, *kinds, *self.llama_cpp.all(), self.out]

    def ticking(self) -> list[Component]:
        """What changes by itself."""
        beside = [*self.llama_cpp.ticking(), *self.upload.ticking()]
        return [self.state, self.said, self.earlier, self.stop, self.make, *beside]

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
                to = gr.Radio(
                    [(told.title, name) for name, told in export_html.FORMATS.items()], value="adapter", label="Format"
                )
                gets = gr.HTML(elem_classes="nb-slot")
            with gr.Group(elem_classes="nb-part"):
                onto = gr.Radio(
                    ONTO, value="dequantised", label="Merge into", info="The result is not quantised to 4 bits again."
                )
                precision = gr.Dropdown(PRECISIONS, value="auto", label="Precision", info="Of the merged weights.")
                gguf_type = gr.Dropdown(TYPES, value="f16", label="GGUF type", info="Precision of the GGUF's weights.")
                apart = gr.Checkbox(
                    False,
                    label="Adapter only",
                    info="A GGUF with the adapter alone, to load with a base model in GGUF.",
                )
                llama_cpp = export_llama_cpp.build()
                out = gr.Textbox(label="Folder", info="On the machine where Nibble runs. Must be new or empty.")
            with gr.Row(elem_classes="nb-actions"):
                make = gr.Button("Export", variant="primary")
                stop = gr.Button("Stop", variant="stop", visible=False)
            said = gr.HTML(elem_classes="nb-slot nb-said")
            taking = hub_and_import.build_import()
        with gr.Column(scale=6, min_width=420):
            state = gr.HTML(export_html.NOTHING, elem_classes="nb-slot")
            upload = hub_and_import.build_upload()
            earlier = gr.HTML(elem_classes="nb-slot")
    shown = (make, stop, said, state, earlier, upload, taking)
    return ExportLayout(empty, run, part, to, gets, onto, precision, gguf_type, apart, llama_cpp, out, *shown)
