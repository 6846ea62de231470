"""Beside the export: putting it on the Hugging Face Hub, and taking in adapters from elsewhere."""

from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from gradio.components import Component

from app.context import Context
from app.export.upload_session import UploadSession
from app.server.uploads import forget
from app.ui import html
from app.ui.updates import ONCE, QUIET, Seen, Updates, is_new
from core.errors import NibbleError
from core.export import jobs
from core.export.import_adapter import import_adapter
from core.export.push_to_hub import plan_upload
from core.export.shared.destination import ExportError

PACKED = [".zip", ".tar", ".gz", ".tgz"]
WHAT = (
    "<p class='nb-muted'>An adapter exported here or made elsewhere with PEFT, for Chat, Arena and more training. "
    "Only safetensors, which cannot contain code."
    "</p>"
)


@dataclass(frozen=True)
class UploadPart:
    """The components of the upload."""

    repo: gr.Textbox
    private: gr.Checkbox
    look: gr.Button
    upload: gr.Button
    message: gr.HTML

    def ticking(self) -> list[Component]:
        """What changes by itself."""
        return [self.message, self.upload]


@dataclass(frozen=True)
class ImportPart:
    """The components of the import. `made` is the adapter that was brought in last."""

    file: gr.File
    place: gr.Textbox
    name: gr.Textbox
    base: gr.Dropdown
    take: gr.Button
    train_further: gr.Button
    made: gr.State
    message: gr.HTML


def build_upload() -> UploadPart:
    """Lay the upload out."""
    with gr.Accordion("Upload to Hugging Face", open=False):
        repo = gr.Textbox(label="Repository", placeholder="your-name/pirate", info="For the export shown above.")
        private = gr.Checkbox(True, label="Private", info="Visible only to you and people you give access.")
        with gr.Row(elem_classes="nb-actions"):
            look = gr.Button("Preview upload")
            upload = gr.Button("Upload", variant="primary", visible=False)
        message = gr.HTML(elem_classes="nb-slot")
    return UploadPart(repo, private, look, upload, message)


def build_import() -> ImportPart:
    """Lay the import out."""
    with gr.Accordion("Import an adapter", open=False):
        gr.HTML(WHAT, elem_classes="nb-slot")
        file = gr.File(label="Adapter archive (zip or tar)", file_types=PACKED, height=90, elem_classes="nb-drop")
        place = gr.Textbox(label="Or adapter folder", info="On the machine where Nibble runs.")
        name = gr.Textbox(label="Adapter name", placeholder="Same as the folder or archive")
        base = gr.Dropdown(
            label="Base model",
            choices=[],
            value=None,
            allow_custom_value=True,
            info="Leave empty to use the one the adapter names.",
        )
        with gr.Row(elem_classes="nb-actions"):
            take = gr.Button("Import", variant="primary")
            train_further = gr.Button("Continue training", visible=False)
        message = gr.HTML(elem_classes="nb-slot")
    return ImportPart(file, place, name, base, take, train_further, gr.State(""), message)


def wire_upload(part: UploadPart, context: Context, uploads: UploadSession) -> None:
    """Attach the events of the upload."""

    def look(repo: str, private: bool) -> Updates:
        try:
            shown = jobs.newest(context.workspace)
            result = shown.read().get("result") if shown is not None else None
            if not result or not Path(result["dir"]).is_dir():
                raise ExportError("Export a run first: the export shown above is what is uploaded.")
            uploads.plan(plan_upload(Path(result["dir"]), repo or "", bool(private)))
        except NibbleError as error:
            uploads.refuse(str(error))
        return uploading(part, uploads)

    def upload() -> Updates:
        uploads.press()
        return uploading(part, uploads)

    part.look.click(look, [part.repo, part.private], part.ticking(), **QUIET)
    part.upload.click(upload, None, part.ticking(), **ONCE)


def wire_import(part: ImportPart, context: Context) -> None:
    """Attach the events of the import."""

    def take(file: str | None, place: str, name: str, base: str | None) -> Updates:
        if not file and not (place or "").strip():
            return {part.message: html.error_box("Choose the adapter's archive or enter its folder.")}
        try:
            source = Path(file) if file else context.reach.read(place, "The adapter's folder")
            made = import_adapter(context.workspace, source, name or "", base or "", context.reach)
            forget([file] if file else [])
        except NibbleError as error:
            return {part.message: html.error_box(str(error))}
        message = (
            f"“{made.name}” is imported and available in Chat and Arena. Its base model is loaded at the first message."
        )
        emptied = {part.file: None, part.place: "", part.name: ""}
        train_further = {part.made: made.name, part.train_further: gr.Button(visible=True)}
        return {part.message: html.note_box(message), **emptied, **train_further}

    given = [part.file, part.place, part.name, part.base]
    changed = [part.message, part.file, part.place, part.name, part.made, part.train_further]
    part.take.click(take, given, changed, **ONCE)


def uploading(part: UploadPart, uploads: UploadSession) -> Updates:
    """How the upload stands."""
    return {part.message: uploads.html(), part.upload: gr.Button(visible=uploads.ready)}


def tick(part: UploadPart, uploads: UploadSession, seen: Seen) -> Updates:
    """What changed since this browser last saw it."""
    return uploading(part, uploads) if is_new(seen, "upload", (uploads.ready, uploads.html())) else {}
