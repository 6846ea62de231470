"""llama.cpp for the proof of a GGUF: what it is good for, and a button that installs it where it is not here."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from app.context import Context
from app.export.llama_cpp_install import LlamaCppInstall
from app.ui import html as ui_html
from app.ui.updates import ONCE, Seen, Updates, is_new
from core.setup import llama_cpp

WHY = (
    "llama.cpp is not installed, so the GGUF is verified with transformers only, and its template and tokens are not "
    "tested in llama.cpp. The download is about 60 MB."
)
OWNER_ONLY = f"{WHY} It can be installed on the machine itself with: {llama_cpp.COMMAND}."


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


def wire(part: LlamaCppPart, context: Context, install: LlamaCppInstall) -> None:
    """Attach the button's event."""

    def press() -> Updates:
        if not context.listening:
            install.press()
        return _told(part, context, install)

    part.install.click(press, None, part.ticking(), **ONCE)


def shown(part: LlamaCppPart, context: Context, install: LlamaCppInstall, wanted: bool) -> Updates:
    """How it stands; `wanted`: a format is chosen that llama.cpp opens."""
    told = _told(part, context, install)
    return {part.place: gr.Column(visible=wanted and told[part.said].visible), **told}


def _told(part: LlamaCppPart, context: Context, install: LlamaCppInstall) -> Updates:
    missing = not llama_cpp.installed()
    html = install.html() or (ui_html.note_box(OWNER_ONLY if context.listening else WHY) if missing else "")
    offered = missing and not install.busy and not context.listening
    return {part.said: gr.HTML(html, visible=bool(html)), part.install: gr.Button(visible=offered)}


def tick(part: LlamaCppPart, context: Context, install: LlamaCppInstall, seen: Seen) -> Updates:
    """What changed since this browser last saw it."""
    seen.setdefault("llama_cpp", "")
    return _told(part, context, install) if is_new(seen, "llama_cpp", install.html()) else {}
