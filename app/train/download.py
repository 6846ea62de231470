"""The download of a base model ahead of a run: offered beside the model, done in the background, for all browsers."""

import threading
from typing import Any

import gradio as gr

from app.ui import html as ui_html
from app.ui.background_job import BackgroundJob
from app.ui.updates import Seen, Updates, is_new
from core.basemodel.download import DownloadStopped, Progress, download, refuse_misfit_online, stopped_sentence
from core.basemodel.find import find_model
from core.sizes import show_bytes


class DownloadSession(BackgroundJob):
    """At most one download at a time. `finished` counts the models that came whole, for whoever looks at them anew."""

    def __init__(self) -> None:
        super().__init__()
        self._offered, self._bytes = "", 0
        self.finished = 0

    def offer(self, model: str, missing_bytes: int) -> None:
        """The model on the form, and how much of it is still to be downloaded; 0 offers nothing."""
        with self._lock:
            if model != self._offered and not self.busy:
                self.result = self.error = ""
            self._offered, self._bytes = model, missing_bytes

    def press(self) -> None:
        """The button: download what is offered, or stop the download under way."""
        with self._lock:
            model = self._offered
            if self.busy:
                self.stop()
                self.show("Stopping…")
            elif self._bytes:
                self.start(lambda stopping: self._download(model, stopping), f"Downloading {model}…")

    def _download(self, model: str, stopping: threading.Event) -> None:
        last: list[Progress] = []

        def progress(state: Progress) -> None:
            last[:] = [state]
            with self._lock:
                if not stopping.is_set():
                    self.show(state.line())

        found = find_model(model)
        try:
            refuse_misfit_online(found, stopping.is_set)
            download(found, progress, stopping.is_set)
        except DownloadStopped:
            self._bytes = found.download_bytes
            self.result = ui_html.note_box(stopped_sentence(last[0] if last else None))
            return
        self._bytes = 0
        self.finished += 1
        self.result = ui_html.note_box(f"{found.label} is on this machine.")

    def html(self) -> str:
        """How it stands, for below the model."""
        shown = super().html()
        if shown or not self._bytes:
            return shown
        size = show_bytes(self._bytes)
        return ui_html.note_box(f"Not on this machine yet: {size} will be downloaded when training starts, or now.")

    def label(self) -> str:
        """What the button says; '' where there is none."""
        if self.busy:
            return "Stop the download"
        return f"Download {show_bytes(self._bytes)} now" if self._bytes else ""


class DownloadParts:
    """Where a download is offered and shown: a place that is there only when there is something to say."""

    def __init__(self) -> None:
        with gr.Column(visible=False, elem_classes="nb-download") as self.place:
            with gr.Row(elem_classes="nb-actions"):
                self.button = gr.Button("Download", size="sm", elem_classes="nb-button")
            self.message = gr.HTML(elem_classes="nb-slot nb-said")

    def all(self) -> list[Any]:
        """All of its components."""
        return [self.place, self.button, self.message]


def updates(session: DownloadSession, parts: DownloadParts) -> Updates:
    """Button and line as they are now."""
    label, html = session.label(), session.html()
    return {
        parts.place: gr.Column(visible=bool(label or html)),
        parts.button: gr.Button(label or "Download", visible=bool(label)),
        parts.message: html,
    }


def tick(session: DownloadSession, parts: DownloadParts, read: gr.State, seen: Seen) -> Updates:
    """What changed since this browser last saw it; a model that came whole has everything looked at anew."""
    first = "downloaded" not in seen
    changed: Updates = {}
    if is_new(seen, "download", (session.label(), session.html())):
        changed = updates(session, parts)
    if is_new(seen, "downloaded", session.finished) and not first:
        changed[read] = f"downloaded {session.finished}"
    return changed
