"""Agreeing to a model's own code on the Train tab: what would run is shown, and only that is agreed to."""

import threading
import unicodedata
from typing import Any

import gradio as gr

from app.context import Context
from app.ui import html as ui_html
from app.ui.updates import Updates
from core.basemodel.code_consent import CodeFile, ModelCode, agree, code_of
from core.basemodel.find import find_model
from core.errors import NibbleError

# Of one file as much is drawn as a browser shows without effort; the whole lies where the page says.
MOST_SHOWN = 200_000
ONLY_AT_THE_MACHINE = (
    "Others can reach this app, so you cannot agree to a model's own code on this page. On the machine itself, use "
    "--agree-to-code with plan, train or chat."
)


class ConsentParts:
    """A place below the check that is there only when a model wants to run code of its own."""

    def __init__(self) -> None:
        with gr.Column(visible=False, elem_classes="nb-consent") as self.place:
            self.shown = gr.HTML(elem_classes="nb-slot")
            with gr.Row(elem_classes="nb-actions"):
                self.agree = gr.Button("Allow this code to run", variant="stop", size="sm", elem_classes="nb-button")

    def all(self) -> list[Any]:
        """All of its components."""
        return [self.place, self.shown, self.agree]


class Consents:
    """What was shown last, on the one form that all browsers share; nothing else can be agreed to."""

    def __init__(self, parts: ConsentParts, context: Context) -> None:
        self._parts, self._context = parts, context
        self._lock = threading.Lock()
        self._shown: tuple[str, str] | None = None  # the model as it was typed, and the digest of its code

    def hide(self) -> Updates:
        """The model needs nothing of the kind."""
        with self._lock:
            self._shown = None
        return {self._parts.place: gr.Column(visible=False), self._parts.shown: ""}

    def show(self, model: str) -> Updates:
        """What the code of `model` is. Raises NibbleError where it cannot be shown."""
        code = code_of(find_model(model))
        if code is None:
            return self.hide()
        with self._lock:
            self._shown = (model, code.digest)
        listening = self._context.listening
        html = code_html(code) + (ui_html.note_box(ONLY_AT_THE_MACHINE) if listening else "")
        return {
            self._parts.place: gr.Column(visible=True),
            self._parts.shown: html,
            self._parts.agree: gr.Button(visible=not listening),
        }

    def agree(self) -> str:
        """Agree to what was shown, if the model still brings just that. Returns its digest. Raises NibbleError."""
        if self._context.listening:
            raise NibbleError(ONLY_AT_THE_MACHINE)
        with self._lock:
            shown = self._shown
        if shown is None:
            raise NibbleError("There is no code to agree to. Choose the model and review its code first.")
        model, digest = shown
        code = code_of(find_model(model))
        if code is None or code.digest != digest:
            raise NibbleError("The model's files have changed since they were shown. Review them again.")
        agree(self._context.workspace, code)
        return digest


def code_html(code: ModelCode) -> str:
    """Which files would run, with all of their text behind each name."""
    files = "".join(_file_html(file) for file in code.files)
    return (
        '<div class="nb-code" role="region" aria-label="Code of the model">'
        f"<b>{ui_html.text(code.named)} comes with its own code: {ui_html.text(code.summary())}</b>"
        "<p>This model's architecture is not built in. To use it, Python code from its authors must run on this "
        "machine with all your rights: it can read your files and use your network. Agree only if you trust the "
        "authors or have read the code. Your consent covers exactly these files; if one changes, you are asked "
        f"again.</p>{files}</div>"
    )


def _file_html(file: CodeFile) -> str:
    text = visible(file.text)
    more = f"\n… and {len(text) - MOST_SHOWN:,} more characters in the file itself." if len(text) > MOST_SHOWN else ""
    size = f"{len(file.content):,} bytes"
    return (
        f"<details><summary><code>{ui_html.text(visible(file.name))}</code> <small>{ui_html.text(size)}</small>"
        f"<small class='nb-hash'>sha256 {ui_html.text(file.sha256)}</small></summary>"
        f"<pre tabindex='0'>{ui_html.text(text[:MOST_SHOWN] + more)}</pre></details>"
    )


def visible(text: str) -> str:
    """`text` with every letter that hides, or turns the order of others round, written out."""
    return "".join(
        f"\\u{ord(each):04x}" if unicodedata.category(each) in ("Cc", "Cf", "Zl", "Zp") and each not in "\n\t" else each
        for each in text.replace("\r\n", "\n")
    )
