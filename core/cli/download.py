"""The `download` command: bring a model from the Hub ahead of its first use."""

import argparse
import sys
import time
from typing import Any

from core.errors import NibbleError
from core.untrusted.paths import Reach
from core.workspace import Workspace

QUIET_SECONDS = 10.0


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `download` takes, beside what every command takes."""
    command.add_argument("model", metavar="MODEL", help="a Hugging Face id such as Qwen/Qwen2.5-0.5B, or a known name")


def download_model(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Download a model, with its progress on standard error. Raises ModelError."""
    from core.basemodel.download import Progress, download, refuse_misfit_online, stopped_sentence
    from core.basemodel.find import find_model
    from core.launch.typed_input import typed_model
    from core.sizes import show_bytes, show_duration

    began = time.monotonic()
    found = find_model(typed_model(Reach.of(Workspace.open(options.data_dir)), options.model))
    needed, last = found.download_bytes, list[Progress]()
    line = ProgressLine()

    def progress(state: Progress) -> None:
        last[:] = [state]
        line.show(state.line())

    if found.folder is None:
        line.show("Looking at its files.")
    refuse_misfit_online(found)
    try:
        model = download(found, progress, stop=lambda: False)
    except KeyboardInterrupt:
        raise NibbleError(stopped_sentence(last[0] if last else None)) from None
    finally:
        line.end()
    seconds = time.monotonic() - began
    if not options.json:
        took = f"{show_bytes(needed)} downloaded in {show_duration(seconds)}" if last else "it was there already"
        print(f"{model.label} is on this machine: {took}.\n{model.folder}")
    answer: dict[str, Any] = {"model": model.source, "revision": model.revision, "folder": str(model.folder)}
    size = sum(file.stat().st_size for file in model.folder.iterdir() if file.is_file()) if model.folder else 0
    return 0, {**answer, "bytes": size, "downloaded_bytes": needed, "seconds": round(seconds, 2)}


class ProgressLine:
    """Shows how a download is on standard error: in one line of a terminal, else now and then."""

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._shown_at: float | None = None

    def show(self, line: str) -> None:
        """Show `line` in the place of the one before."""
        now = time.monotonic()
        if self._on_terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif self._shown_at is None or now - self._shown_at >= QUIET_SECONDS:
            print(line, file=sys.stderr, flush=True)
        else:
            return
        self._shown_at = now

    def end(self) -> None:
        """What comes next begins a line of its own."""
        if self._on_terminal and self._shown_at is not None:
            print(file=sys.stderr)
        self._shown_at = None
