"""The download of a base model ahead of a run: offered beside the model, done in the background, for all browsers."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from app.ui import html as ui_html
from app.ui.background_job import Background
from core.basemodel.before_download import refuse_misfit_online
from core.basemodel.download import DownloadStopped, Progress, download, stopped_sentence
from core.basemodel.find import find_model
from core.sizes import show_bytes

Updates = dict[Any, Any]


class DownloadSession(Background):
    """At most one download at a time. `finished` counts the models that came whole, for whoever looks at them anew."""

    def __init__(self) -> None:
        super().__init__()
        self._stop = threading.Event()
        self._offered, self._bytes = "", 0
        self.finished = 0

    def offer(self, model: str, missing_bytes: int) -> None:
        """The model on the form, and how much of it is still to be downloaded; 0 offers nothing."""
        with self._lock:
            if model != self._offered and not self.busy:
                self._shown = ""
            self._offered, self._bytes = model, missing_bytes

    def press(self) -> None:
        """The button: download what is offered, or stop the download under way."""
        with self._lock:
            if self.busy:
                self._stop.set()
                self._shown = ui_html.busy("Stopping…")
            elif self._bytes:
                self._stop.clear()
                self._begin(f"Downloading {self._offered}…", partial(self._download, self._offered))

    def _download(self, model: str) -> str:
        last: list[Progress] = []

        def progress(state: Progress) -> None:
            last[:] = [state]
            self._show(ui_html.busy(state.line()))

        found = find_model(model)
        try:
            refuse_misfit_online(found, self._stop.is_set)
            download(found, progress, self._stop.is_set)
        except DownloadStopped:
            self._bytes = found.download_bytes
            return ui_html.note_box(stopped_sentence(last[0] if last else None))
        self._bytes = 0
        self.finished += 1
        return ui_html.note_box(f"{found.label} is on this machine.")

    def _show(self, html: str) -> None:
        with self._lock:
            if not self._stop.is_set():
                self._shown = html

    def html(self) -> str:
        """How it stands, for below the model."""
        if self._shown or not self._bytes:
            return self._shown
        size = show_bytes(self._bytes)
        return ui_html.note_box(f"Not on this machine yet: {size} are downloaded when the training starts, or now.")

    def label(self) -> str:
        """What the button says; '' where there is none."""
        if self.busy:
            return "Stop the download"
        return f"Download {show_bytes(self._bytes)} now" if self._bytes else ""


@dataclass(frozen=True)
class DownloadParts:
    """Where a download is offered and shown: a place that is there only when there is something to say."""

    place: gr.Column
    button: gr.Button
    said: gr.HTML

    def all(self) -> list[Any]:
        """All of its components."""
        return [self.place, self.button, self.said]


def build() -> DownloadParts:
    """Lay it out."""
    with gr.Column(visible=False, elem_classes="nb-download") as place:
        with gr.Row(elem_classes="nb-actions"):
            button = gr.Button("Download", size="sm", elem_classes="nb-button")
        said = gr.HTML(elem_classes="nb-slot nb-said")
    return DownloadParts(place, button, said)


def updates(desk: DownloadSession, parts: DownloadParts) -> Updates:
    """Button and line as they are now."""
    label, html = desk.label(), desk.html()
    return {
        parts.place: gr.Column(visible=bool(label or html)),
        parts.button: gr.Button(label or "Download", visible=bool(label)),
        parts.said: html,
    }


def tick(desk: DownloadSession, parts: DownloadParts, read: gr.State, seen: dict[str, str]) -> Updates:
    """What changed since this browser last saw it; a model that came whole has everything looked at anew."""
    mark = f"{desk.label()} {desk.html()}"
    changed: Updates = {}
    if seen.get("download") != mark:
        seen["download"] = mark
        changed = updates(desk, parts)
    finished = str(desk.finished)
    if seen.setdefault("downloaded", finished) != finished:
        seen["downloaded"] = finished
        changed[read] = f"downloaded {finished}"
    return changed
