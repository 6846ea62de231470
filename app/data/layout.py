"""What stands on the Data tab: the settings of a dataset, what was found in it, and its rows."""

from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component

from app.data import html as data_html
from app.data.mapping import MappingPanel
from app.ui import html
from app.ui.form import FIELDS, Form, build_field, build_menu
from app.ui.pager import RowPager
from app.ui.upload import drop_area

HUB = ("data.split", "data.config")
ROWS_TOGETHER = ("data.named_splits", "data.join_turns")
SEEN_BY_MODEL = ("data.max_length", "data.train_on", "data.template", "data.generation_prompt", "data.system")


class Save(NamedTuple):
    """A file to take away: the button's label, what is asked of the helper, and how the file's name ends."""

    label: str
    what: str
    ending: str


SAVES = {
    "json": Save("Report (JSON)", "save_report", "report.json"),
    "markdown": Save("Report (Markdown)", "save_report", "report.md"),
    "cleaned": Save("Cleaned data (messages, jsonl)", "save_cleaned", "cleaned.jsonl"),
}


class DataLayout:
    """The components of the tab that events touch. `fields` are by the recipe's keys, as in the Train tab's form."""

    def __init__(self) -> None:
        self.fields: dict[str, Component] = {}
        self.parts: dict[str, gr.HTML] = {}
        with gr.Row(elem_classes="nb-train nb-data"):
            with gr.Column(scale=4, min_width=320, elem_classes="nb-form"):
                self._build_settings()
                self.train = gr.Button("Train on this", variant="primary", size="lg")
            with gr.Column(scale=8, min_width=320, elem_classes="nb-found"):
                self.message = gr.HTML(elem_classes="nb-slot nb-said")
                self.mapping = MappingPanel()
                self.parts["mapped"] = self.mapping.preview
                self.parts["head"] = _slot(data_html.empty(), "nb-data-head")
                self.parts["findings"] = _slot()
                with gr.Column(visible=False, elem_classes="nb-row-place") as self.viewer:
                    self.pager = RowPager()
                    self.parts["row"] = _slot()
                self.parts["lengths"] = _slot()
                with gr.Row(visible=False, elem_classes="nb-actions nb-save") as self.saving:
                    gr.HTML("<h3>Downloads</h3>", elem_classes="nb-slot")
                    self.saves = {key: gr.Button(save.label, size="sm") for key, save in SAVES.items()}
                self.saved = gr.HTML(elem_classes="nb-slot nb-said")
                self.download = gr.DownloadButton("Download", visible="hidden", elem_id="nb-download")

    def _build_settings(self) -> None:
        with gr.Group(elem_classes="nb-part"):
            gr.HTML(html.step_figure("1", "Dataset"), elem_classes="nb-slot")
            self.fields["data.path"] = build_menu("Dataset", "data.path")
            with gr.Row(visible=False, elem_classes="nb-fields") as self.hub:
                self.fields.update({key: build_field(FIELDS[key]) for key in HUB})
            self.upload = drop_area()
        with gr.Group(elem_classes="nb-part"):
            gr.HTML(html.step_figure("2", "Format"), elem_classes="nb-slot")
            self.fields["data.format"] = build_field(FIELDS["data.format"])
            self.parts["evidence"] = _slot()
            self.by_hand = gr.Button("Map columns", size="sm", elem_classes="nb-narrow")
            self.fields["data.encoding"] = build_field(FIELDS["data.encoding"])
            self.parts["encoding"] = _slot()
            with gr.Row(elem_classes="nb-fields"):
                self.fields.update({key: build_field(FIELDS[key]) for key in ROWS_TOGETHER})
        with gr.Group(elem_classes="nb-part"):
            gr.HTML(html.step_figure("3", "Model and template"), elem_classes="nb-slot")
            self.fields["model"] = build_menu("Base model", "model")
            with gr.Row(elem_classes="nb-fields"):
                self.fields.update({key: build_field(FIELDS[key]) for key in SEEN_BY_MODEL})
            self.parts["template"] = _slot()

    def inputs(self) -> set[Component]:
        """For an event's `inputs`: what the person may have set here."""
        return {*self.fields.values(), *self.mapping.inputs()}

    def changed(self, form: Form) -> list[Any]:
        """What a press may change, on this tab and on the Train tab's form."""
        both = [form.fields[key] for key in (*self.fields, "data.mapping")]
        return list(dict.fromkeys([*self.settings(), *both, *self.drawn(), self.upload]))

    def drawn(self) -> list[Component]:
        """What is drawn anew when more is known."""
        encoding = self.fields["data.encoding"]
        shown = [self.viewer, self.saving, self.pager.row, encoding, self.mapping.speakers]
        return [*self.parts.values(), *shown, *self.mapping.inputs()]

    def settings(self) -> list[Component]:
        """What shows the settings."""
        return [*self.fields.values(), *self.mapping.inputs(), self.mapping.group, self.hub, self.message]


def _slot(value: str = "", named: str = "") -> gr.HTML:
    return gr.HTML(value, elem_classes=f"nb-slot {named}", js_on_load=data_html.ACT)
