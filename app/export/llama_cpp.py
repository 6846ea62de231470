"""llama.cpp for the proof of a GGUF: what it is good for, and a button that installs it where it is not here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from app.context import Context
from app.ui import html as ui_html
from core.setup import llama_cpp

Updates = dict[Any, Any]
WHY = (
    "llama.cpp, which runs GGUFs, is not installed here: the file is then proved only as far as transformers reads it, "
    "and nobody has tried its template and tokens as llama.cpp reads them. It is about 60 MB."
)
OWNER_ONLY = f"{WHY} Its owner installs it on the machine itself: {llama_cpp.COMMAND}."


@dataclass(frozen=True)
class LlamaCppPart:
    """The components; `place` is seen while a format is chosen that llama.cpp opens."""

    place: gr.Column
    said: gr.HTML
    install: gr.Button

    def all(self) -> list[Component]:
        """For an event's outputs."""
        return [self.place, *self.ticking()]

    def ticking(self) -> list[Component]:
        """What changes by itself."""
        return [self.said, self.install]


def build() -> LlamaCppPart:
    """Lay it out."""
    with gr.Column(visible=False) as place:
        said = gr.HTML(elem_classes="nb-slot nb-said", visible=False)
        install = gr.Button("Install llama.cpp", visible=False, size="sm", elem_classes="nb-narrow")
    return LlamaCppPart(place, said, install)


def wire(part: LlamaCppPart, context: Context) -> None:
    """Attach the button's event."""

    def press() -> Updates:
        if not context.listening:
            context.llama_cpp.press()
        return _told(part, context)

    part.install.click(
        press, None, part.ticking(), trigger_mode="once", show_progress="hidden", api_visibility="private"
    )


def shown(part: LlamaCppPart, context: Context, wanted: bool) -> Updates:
    """How it stands; `wanted`: a format is chosen that llama.cpp opens."""
    told = _told(part, context)
    return {part.place: gr.Column(visible=wanted and told[part.said].visible), **told}


def _told(part: LlamaCppPart, context: Context) -> Updates:
    desk, missing = context.llama_cpp, not llama_cpp.installed()
    html = desk.html() or (ui_html.note_box(OWNER_ONLY if context.listening else WHY) if missing else "")
    offered = missing and not desk.busy and not context.listening
    return {part.said: gr.HTML(html, visible=bool(html)), part.install: gr.Button(visible=offered)}


def tick(part: LlamaCppPart, context: Context, seen: dict[str, Any]) -> Updates:
    """What changed since this browser last saw it."""
    html = context.llama_cpp.html()
    if seen.get("llama_cpp", "") == html:
        return {}
    seen["llama_cpp"] = html
    return _told(part, context)
