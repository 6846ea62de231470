"""Data: what is in a dataset, before anything is trained on it. The same dataset and model as on the Train form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from app.context import Context
from app.data import html as data_html
from app.data.events import SAVES, DataEvents
from app.data.mapping import MappingPanel, build_mapping
from app.ui import html, menus
from app.ui.form import DEFAULTS, WORDS, Field, Form, build_field
from app.ui.upload import drop_area
from core.recipe import help_text

Updates = dict[Any, Any]
PARTS = ("head", "evidence", "encoding", "template", "findings", "lengths", "row", "mapped")
HUB = (Field("data.split", "Split", "text"), Field("data.config", "Configuration", "text"))
ROWS_TOGETHER = (
    Field("data.named_splits", "Train, validation, test", "choice"),
    Field("data.join_turns", "Join turns of one speaker", "switch"),
)
SEEN_BY_MODEL = (
    Field("data.max_length", "Length limit (tokens)", "integer"),
    Field("data.train_on", "Counts in the loss", "choice"),
    Field("data.template", "Chat template", "choice"),
    Field("data.generation_prompt", "Generation prompt", "choice"),
    Field("data.system", "System prompts", "choice"),
)
PRESS_DOWNLOAD = "() => setTimeout(() => document.querySelector('#nb-download')?.click(), 300)"


@dataclass(frozen=True)
class DataTab:
    """The components of the tab that events touch. `fields` are by the recipe's keys, as in the Train tab's form."""

    fields: dict[str, Component]
    hub: gr.Row
    upload: gr.File
    by_hand: gr.Button
    mapping: MappingPanel
    said: gr.HTML
    train: gr.Button
    parts: dict[str, gr.HTML]
    viewer: gr.Column
    row: gr.Number
    before: gr.Button
    after: gr.Button
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
        shown = [self.viewer, self.saving, self.row, encoding, self.mapping.speakers]
        return [*self.parts.values(), *shown, *self.mapping.inputs()]

    def settings(self) -> list[Component]:
        """What shows the settings."""
        return [*self.fields.values(), *self.mapping.inputs(), self.mapping.group, self.hub, self.said]


def build() -> DataTab:
    """Lay the tab out. Nothing is looked up here: the tab fills itself when it is opened."""
    parts: dict[str, gr.HTML] = {}
    with gr.Row(elem_classes="nb-train nb-data"):
        with gr.Column(scale=4, min_width=320, elem_classes="nb-form"):
            fields, hub, upload, by_hand = _build_settings(parts)
            train = gr.Button("Train on this", variant="primary", size="lg")
        with gr.Column(scale=8, min_width=320, elem_classes="nb-found"):
            said = gr.HTML(elem_classes="nb-slot nb-said")
            mapping = build_mapping()
            parts["mapped"] = mapping.preview
            parts["head"] = _slot(data_html.empty(), "nb-data-head")
            parts["findings"] = _slot()
            with gr.Column(visible=False, elem_classes="nb-row-place") as viewer:
                with gr.Row(elem_classes="nb-pager"):
                    before = gr.Button("‹ Row before", size="sm")
                    row = gr.Number(1, label="Row", show_label=False, container=False, precision=0, min_width=80)
                    after = gr.Button("Next row ›", size="sm")
                parts["row"] = _slot()
            parts["lengths"] = _slot()
            with gr.Row(visible=False, elem_classes="nb-actions nb-save") as saving:
                gr.HTML("<h3>Take it with you</h3>", elem_classes="nb-slot")
                saves = {key: gr.Button(save.label, size="sm") for key, save in SAVES.items()}
            saved = gr.HTML(elem_classes="nb-slot nb-said")
            download = gr.DownloadButton("Download", visible="hidden", elem_id="nb-download")
    return DataTab(
        fields=fields,
        hub=hub,
        upload=upload,
        by_hand=by_hand,
        mapping=mapping,
        said=said,
        train=train,
        parts=parts,
        viewer=viewer,
        row=row,
        before=before,
        after=after,
        saving=saving,
        saves=saves,
        saved=saved,
        download=download,
    )


def _build_settings(parts: dict[str, gr.HTML]) -> tuple[dict[str, Component], gr.Row, gr.File, gr.Button]:
    fields: dict[str, Component] = {}
    with gr.Group(elem_classes="nb-part"):
        gr.HTML(html.step_figure("1", "Which data"), elem_classes="nb-slot")
        fields["data.path"] = _menu("Dataset", "data.path")
        with gr.Row(visible=False, elem_classes="nb-fields") as hub:
            fields.update({field.key: build_field(field) for field in HUB})
        upload = drop_area()
    with gr.Group(elem_classes="nb-part"):
        gr.HTML(html.step_figure("2", "How it is read"), elem_classes="nb-slot")
        fields["data.format"] = build_field(Field("data.format", "Format", "choice"))
        parts["evidence"] = _slot()
        by_hand = gr.Button("Correct by hand", size="sm", elem_classes="nb-narrow")
        fields["data.encoding"] = build_field(Field("data.encoding", "Encoding", "names"))
        parts["encoding"] = _slot()
        with gr.Row(elem_classes="nb-fields"):
            fields.update({field.key: build_field(field) for field in ROWS_TOGETHER})
    with gr.Group(elem_classes="nb-part"):
        gr.HTML(html.step_figure("3", "How the model sees it"), elem_classes="nb-slot")
        fields["model"] = _menu("Base model", "model")
        with gr.Row(elem_classes="nb-fields"):
            fields.update({field.key: build_field(field) for field in SEEN_BY_MODEL})
        parts["template"] = _slot()
    return fields, hub, upload, by_hand


def _slot(value: str = "", named: str = "") -> gr.HTML:
    return gr.HTML(value, elem_classes=f"nb-slot {named}", js_on_load=data_html.ACT)


def _menu(label: str, key: str) -> gr.Dropdown:
    return gr.Dropdown(label=label, info=help_text(key), allow_custom_value=True, value=DEFAULTS[key])


def wire(tab: DataTab, form: Form, context: Context) -> None:
    """Attach the tab's events. `form` is the Train tab's: both show the same settings."""
    events = DataEvents(tab, form, context)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    known = form.inputs() | tab.inputs()
    changed = tab.changed(form)
    path, layout = tab.fields["data.path"], tab.fields["data.format"]
    typed = [component.input for component in tab.fields.values() if component not in (path, layout)]
    typed += [component.input for component in tab.mapping.inputs()]
    # Said by the page itself, so that a press is answered before the server has heard of it.
    at_once = json.dumps(data_html.head({"stage": "starting", "progress": 0.0, "name": ""}))
    for press in (path.input, tab.upload.upload):
        press(None, None, tab.parts["head"], js=f"() => {at_once}", **quiet)
    path.input(events.choose, known, changed, trigger_mode="always_last", **quiet)
    layout.input(events.read_as, known, changed, trigger_mode="always_last", **quiet)
    tab.upload.upload(events.keep, known | {tab.upload}, changed, **quiet)
    gr.on(typed, events.change, known, changed, trigger_mode="always_last", **quiet)
    tab.by_hand.click(events.correct, known, changed, **quiet)
    for part in tab.parts.values():
        part.click(events.press, known, changed, **quiet)
    tab.before.click(lambda row: max(1, (row or 1) - 1), tab.row, tab.row, queue=False, **quiet)
    tab.after.click(lambda row: (row or 0) + 1, tab.row, tab.row, queue=False, **quiet)
    tab.row.change(
        events.show,
        tab.row,
        [tab.parts["row"], tab.parts["mapped"], tab.row, tab.said],
        trigger_mode="always_last",
        **quiet,
    )
    for key, button in tab.saves.items():
        button.click(None, None, tab.saved, js=f"() => {json.dumps(html.busy('Writing the file…'))}", **quiet)
        ready = button.click(events.saver(key), None, [tab.download, tab.saved], trigger_mode="once", **quiet)
        ready.success(None, None, None, js=PRESS_DOWNLOAD, **quiet)


def fill(tab: DataTab, form: Form, context: Context, given: dict[Component, Any]) -> Updates:
    """What the tab shows when it is opened: the Train form's settings, and their dataset looked at."""
    updates = DataEvents(tab, form, context).open(given)
    for key, menu in (("model", menus.models), ("data.path", menus.datasets)):
        component = tab.fields[key]
        updates[component] = gr.Dropdown(choices=menu(context.workspace), value=updates[component])
    return updates


def tick(tab: DataTab, context: Context, seen: dict[str, str]) -> Updates:
    """What changed on the Data tab since this browser last saw it."""
    desk, state = context.data, context.data.state
    parts = desk.parts()
    if seen.get("turn") != str(desk.turn):  # the press that began this turn has drawn something too
        seen.clear()
        seen["turn"] = str(desk.turn)
    fresh = {part for part in PARTS if seen.get(part) != parts[part]}
    seen.update({part: parts[part] for part in fresh})
    updates: Updates = {tab.parts[part]: parts[part] for part in fresh}
    known = state["stage"] != "failed" and "usable" in state
    if seen.get("known") != str(known):
        seen["known"] = str(known)
        updates |= {
            tab.viewer: gr.Column(visible=known),
            tab.saving: gr.Row(visible=known),
            tab.row: max(1, desk.number),
        }
    columns = json.dumps([state.get(key) for key in ("columns", "turn_columns", "speakers", "error")])
    if state.get("columns") and seen.get("columns") != columns:
        seen["columns"] = columns
        updates |= tab.mapping.choices(state)
    encodings = json.dumps(state.get("encodings") or [])
    if seen.get("encodings") != encodings:
        seen["encodings"] = encodings
        updates[tab.fields["data.encoding"]] = gr.Dropdown(choices=_encoding_menu(state.get("encodings") or []))
    return updates


def _encoding_menu(offered: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Every encoding; those that the data may be in first, the likeliest before, each with words as they would read."""
    words = {each["encoding"]: data_html.reads(each["words"]) for each in offered}
    named = WORDS["data.encoding"]
    first = [(f"{named[name]}: {shown}", name) for name, shown in words.items()]
    others = [(label, name) for name, label in named.items() if name not in words]
    return [others[0], *first, *others[1:]] if first else others
