"""Beside the export: putting it on the Hugging Face Hub, and taking in adapters from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from app.context import Context
from app.export.events import newest
from app.server.uploads import forget
from app.ui import html, menus
from core.errors import NibbleError
from core.export.import_adapter import import_adapter
from core.export.push_to_hub import plan_upload
from core.export.shared.destination import ExportError

Updates = dict[Any, Any]
PACKED = [".zip", ".tar", ".gz", ".tgz"]
WHAT = (
    "<p class='nb-muted'>Exported here, or made elsewhere with PEFT: for Chat, Arena and further training. Only "
    "safetensors, which hold numbers and no code.</p>"
)


@dataclass(frozen=True)
class More:
    """The components of both parts."""

    repo: gr.Textbox
    private: gr.Checkbox
    look: gr.Button
    upload: gr.Button
    pushed: gr.HTML
    file: gr.File
    place: gr.Textbox
    name: gr.Textbox
    base: gr.Dropdown
    take: gr.Button
    further: gr.Button
    made: gr.State
    taken: gr.HTML

    def ticking(self) -> list[Component]:
        """What changes by itself."""
        return [self.pushed, self.upload]


def build_push() -> tuple[gr.Textbox, gr.Checkbox, gr.Button, gr.Button, gr.HTML]:
    """Lay the upload out."""
    with gr.Accordion("Put it on Hugging Face", open=False):
        repo = gr.Textbox(label="Name there", placeholder="your-name/pirate", info="Of the export shown above.")
        private = gr.Checkbox(True, label="Private", info="Only you, and those you let in, can see it.")
        with gr.Row(elem_classes="nb-actions"):
            look = gr.Button("Show what will be uploaded")
            upload = gr.Button("Upload it", variant="primary", visible=False)
        pushed = gr.HTML(elem_classes="nb-slot")
    return repo, private, look, upload, pushed


def build_import() -> tuple[gr.File, gr.Textbox, gr.Textbox, gr.Dropdown, gr.Button, gr.Button, gr.State, gr.HTML]:
    """Lay the import out."""
    with gr.Accordion("Bring an adapter in", open=False):
        gr.HTML(WHAT, elem_classes="nb-slot")
        file = gr.File(label="Its zip or tar", file_types=PACKED, height=90, elem_classes="nb-drop")
        place = gr.Textbox(label="Or its folder", info="On the machine that Nibble runs on.")
        name = gr.Textbox(label="Call it", placeholder="As its folder or zip is called")
        base = gr.Dropdown(
            label="Its base", choices=[], value=None, allow_custom_value=True, info="Empty: the one it names itself."
        )
        with gr.Row(elem_classes="nb-actions"):
            take = gr.Button("Bring it in", variant="primary")
            further = gr.Button("Train it further", visible=False)
        taken = gr.HTML(elem_classes="nb-slot")
    return file, place, name, base, take, further, gr.State(""), taken


def wire(more: More, context: Context) -> None:
    """Attach the events of both."""
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def look(repo: str, private: bool) -> Updates:
        try:
            shown = newest(context)
            result = shown.read().get("result") if shown is not None else None
            if not result or not Path(result["dir"]).is_dir():
                raise ExportError("Export a run first: what is shown above is what is uploaded.")
            context.pushes.plan(plan_upload(Path(result["dir"]), repo or "", bool(private)))
        except NibbleError as error:
            context.pushes.refuse(str(error))
        return pushing(more, context)

    def upload() -> Updates:
        context.pushes.press()
        return pushing(more, context)

    def take(file: str | None, place: str, name: str, base: str | None) -> Updates:
        if not file and not (place or "").strip():
            return {more.taken: html.error_box("Choose its zip, or write the folder that the adapter is in.")}
        try:
            source = Path(file) if file else context.reach.read(place, "The adapter's folder")
            made = import_adapter(context.workspace, source, name or "", base or "", context.reach)
            forget([file] if file else [])
        except NibbleError as error:
            return {more.taken: html.error_box(str(error))}
        said = f"“{made.name}” is here: Chat and Arena offer it. Its base is loaded when it first speaks."
        emptied = {more.file: None, more.place: "", more.name: ""}
        further = {more.made: made.name, more.further: gr.Button(visible=True)}
        return {more.taken: html.note_box(said), **emptied, **further}

    given = [more.file, more.place, more.name, more.base]
    changed = [more.taken, more.file, more.place, more.name, more.made, more.further]
    more.look.click(look, [more.repo, more.private], more.ticking(), **quiet)
    more.upload.click(upload, None, more.ticking(), trigger_mode="once", **quiet)
    more.take.click(take, given, changed, trigger_mode="once", **quiet)


def fill(more: More, context: Context) -> Updates:
    """The bases that there are."""
    return {more.base: gr.Dropdown(choices=menus.models(context.workspace))}


def pushing(more: More, context: Context) -> Updates:
    """How the upload stands."""
    return {more.pushed: context.pushes.html(), more.upload: gr.Button(visible=context.pushes.ready)}


def tick(more: More, context: Context, seen: dict[str, Any]) -> Updates:
    """What changed since this browser last saw it."""
    mark = f"{context.pushes.ready} {context.pushes.html()}"
    if seen.get("push") == mark:
        return {}
    seen["push"] = mark
    return pushing(more, context)
