"""What stands on the Data tab: the settings of a dataset, what was found in it, and its rows."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component

from app.data import html as data_html
from app.data.mapping import MappingPanel, build_mapping
from app.ui import html
from app.ui.form import DEFAULTS, FIELDS, Form, build_field
from app.ui.pager import RowPager, build_pager
from app.ui.upload import drop_area
from core.recipe import help_text

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


@dataclass(frozen=True)
class DataLayout:
    """The components of the tab that events touch. `fields` are by the recipe's keys, as in the Train tab's form."""

    fields: dict[str, Component]
    hub: gr.Row
    upload: gr.File
    by_hand: gr.Button
    mapping: MappingPanel
    message: gr.HTML
    train: gr.Button
    parts: dict[str, gr.HTML]
    viewer: gr.Column
    pager: RowPager
    saving: gr.Row
    saves: dict[str, gr.Button]
    saved: gr.HTML
    download: gr.DownloadButton

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


def build() -> DataLayout:
    """Lay the tab out. Nothing is looked up here: the tab fills itself when it is opened."""
    parts: dict[str, gr.HTML] = {}
    with gr.Row(elem_classes="nb-train nb-data"):
        with gr.Column(scale=4, min_width=320, elem_classes="nb-form"):
            fields, hub, upload, by_hand = _build_settings(parts)
            train = gr.Button("Train on this", variant="primary", size="lg")
        with gr.Column(scale=8, min_width=320, elem_classes="nb-found"):
            message = gr.HTML(elem_classes="nb-slot nb-said")
            mapping = build_mapping()
            parts["mapped"] = mapping.preview
            parts["head"] = _slot(data_html.empty(), "nb-data-head")
            parts["findings"] = _slot()
            with gr.Column(visible=False, elem_classes="nb-row-place") as viewer:
                pager = build_pager()
                parts["row"] = _slot()
            parts["lengths"] = _slot()
            with gr.Row(visible=False, elem_classes="nb-actions nb-save") as saving:
                gr.HTML("<h3>Downloads</h3>", elem_classes="nb-slot")
                saves = {key: gr.Button(save.label, size="sm") for key, save in SAVES.items()}
            saved = gr.HTML(elem_classes="nb-slot nb-said")
            download = gr.DownloadButton("Download", visible="hidden", elem_id="nb-download")
    rows = (parts, viewer, pager, saving, saves, saved, download)
    return DataLayout(fields, hub, upload, by_hand, mapping, message, train, *rows)


def _build_settings(parts: dict[str, gr.HTML]) -> tuple[dict[str, Component], gr.Row, gr.File, gr.Button]:
    fields: dict[str, Component] = {}
    with gr.Group(elem_classes="nb-part"):
        gr.HTML(html.step_figure("1", "Dataset"), elem_classes="nb-slot")
        fields["data.path"] = _menu("Dataset", "data.path")
        with gr.Row(visible=False, elem_classes="nb-fields") as hub:
            fields.update({key: build_field(FIELDS[key]) for key in HUB})
        upload = drop_area()
    with gr.Group(elem_classes="nb-part"):
        gr.HTML(html.step_figure("2", "Format"), elem_classes="nb-slot")
        fields["data.format"] = build_field(FIELDS["data.format"])
        parts["evidence"] = _slot()
        by_hand = gr.Button("Map columns", size="sm", elem_classes="nb-narrow")
        fields["data.encoding"] = build_field(FIELDS["data.encoding"])
        parts["encoding"] = _slot()
        with gr.Row(elem_classes="nb-fields"):
            fields.update({key: build_field(FIELDS[key]) for key in ROWS_TOGETHER})
    with gr.Group(elem_classes="nb-part"):
        gr.HTML(html.step_figure("3", "Model and template"), elem_classes="nb-slot")
        fields["model"] = _menu("Base model", "model")
        with gr.Row(elem_classes="nb-fields"):
            fields.update({key: build_field(FIELDS[key]) for key in SEEN_BY_MODEL})
        parts["template"] = _slot()
    return fields, hub, upload, by_hand


def _slot(value: str = "", named: str = "") -> gr.HTML:
    return gr.HTML(value, elem_classes=f"nb-slot {named}", js_on_load=data_html.ACT)


def _menu(label: str, key: str) -> gr.Dropdown:
    return gr.Dropdown(label=label, info=help_text(key), allow_custom_value=True, value=DEFAULTS[key])
