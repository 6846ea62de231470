"""llama.cpp for the proof of a GGUF: what it is good for, and a button that installs it where it is not here."""

from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from app.context import Context
from app.ui import html as ui_html
from app.ui.background_job import BackgroundJob
from app.ui.updates import ONCE, Seen, Updates, is_new
from core.setup import llama_cpp

WHY = (
    "llama.cpp, which runs GGUFs, is not installed here: the file is then proved only as far as transformers reads it, "
    "and nobody has tried its template and tokens as llama.cpp reads them. It is about 60 MB."
)
OWNER_ONLY = f"{WHY} It can be installed on the machine itself with: {llama_cpp.COMMAND}."


class LlamaCppInstall(BackgroundJob):
    """At most one install at a time."""

    def press(self) -> None:
        """Install it."""
        with self._lock:
            if not self.busy and not llama_cpp.installed():
                self.start(lambda stopping: self._install(), "Installing llama.cpp…")

    def _install(self) -> None:
        version = llama_cpp.install(lambda line: self.show(f"Installing llama.cpp… {line[:120]}"))
        message = f"llama.cpp ({version}) is installed. GGUF exports are now verified with it."
        self.result = ui_html.note_box(message)


@dataclass(frozen=True)
class LlamaCppPart:
    """The components; `place` is seen while a format is chosen that llama.cpp opens."""

    place: gr.Column
    message: gr.HTML
    install: gr.Button

    def all(self) -> list[Component]:
        """For an event's outputs."""
        return [self.place, *self.ticking()]

    def ticking(self) -> list[Component]:
        """What changes by itself."""
        return [self.message, self.install]


def build() -> LlamaCppPart:
    """Lay it out."""
    with gr.Column(visible=False) as place:
        message = gr.HTML(elem_classes="nb-slot nb-said", visible=False)
        install = gr.Button("Install llama.cpp", visible=False, size="sm", elem_classes="nb-narrow")
    return LlamaCppPart(place, message, install)


def wire(part: LlamaCppPart, context: Context, install: LlamaCppInstall) -> None:
    """Attach the button's event."""

    def press() -> Updates:
        if not context.listening:
            install.press()
        return _state(part, context, install)

    part.install.click(press, None, part.ticking(), **ONCE)


def shown(part: LlamaCppPart, context: Context, install: LlamaCppInstall, wanted: bool) -> Updates:
    """How it stands; `wanted`: a format is chosen that llama.cpp opens."""
    parts = _state(part, context, install)
    return {part.place: gr.Column(visible=wanted and parts[part.message].visible), **parts}


def _state(part: LlamaCppPart, context: Context, install: LlamaCppInstall) -> Updates:
    missing = not llama_cpp.installed()
    html = install.html() or (ui_html.note_box(OWNER_ONLY if context.listening else WHY) if missing else "")
    offered = missing and not install.busy and not context.listening
    return {part.message: gr.HTML(html, visible=bool(html)), part.install: gr.Button(visible=offered)}


def tick(part: LlamaCppPart, context: Context, install: LlamaCppInstall, seen: Seen) -> Updates:
    """What changed since this browser last saw it."""
    seen.setdefault("llama_cpp", "")
    return _state(part, context, install) if is_new(seen, "llama_cpp", install.html()) else {}
