"""Start-up: from the start of the process to the page's first answer, Nibble's app against an empty Gradio app.

The two take turns for several rounds, and the figure is the median of the rounds' ratios, so other load on the
machine slows both. The first round warms the disk cache and does not count.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from app.server.instance import choose_port
from app.server.keys import workspace_token
from core.workspace import ROOT, Workspace

ROUNDS = 5
BAR = 1.3
PATIENCE_SECONDS = 120
EMPTY = "import gradio as gr\nwith gr.Blocks() as demo: pass\ndemo.launch(server_port={port}, quiet=True)\n"


def main(seed: int = 0) -> list[dict[str, Any]]:
    """Rows of figures, as `bench NAME --json` prints them. Nothing is random, so `seed` is not used."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(folder)
        token = workspace_token(workspace.state)
        rounds = [(_empty(), _nibble(folder, token)) for _ in range(ROUNDS + 1)][1:]
    ratio = statistics.median(ours / empty for empty, ours in rounds)
    return [
        {
            "name": "seconds to the page",
            "value": statistics.median(ours for _, ours in rounds),
            "unit": "s",
            "reference": statistics.median(empty for empty, _ in rounds),
            "bar": None,
            "holds": None,
        },
        {
            "name": "page, against an empty Gradio app",
            "value": ratio,
            "unit": "times",
            "reference": 1.0,
            "bar": BAR,
            "holds": ratio <= BAR,
        },
    ]


def _empty() -> float:
    port = choose_port(0)
    return _seconds([sys.executable, "-c", EMPTY.format(port=port)], f"http://127.0.0.1:{port}/")


def _nibble(folder: str, token: str) -> float:
    port = choose_port(0)
    command = [sys.executable, "-m", "core.cli", "ui", "--no-browser", "--port", str(port), "--data-dir", folder]
    return _seconds(command, f"http://127.0.0.1:{port}/?token={token}")


def _seconds(command: list[str], url: str) -> float:
    """Start `command`, measure until `url` answers, then end it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRADIO_ANALYTICS_ENABLED": "False"}
    with tempfile.TemporaryDirectory() as elsewhere:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=Path(elsewhere), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not _answers(url):
                if process.poll() is not None or time.monotonic() - started > PATIENCE_SECONDS:
                    raise RuntimeError(f"{' '.join(command[1:4])} did not answer.")
                time.sleep(0.01)
            return time.monotonic() - started
        finally:
            process.terminate()
            process.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200 and answer.read())
    except (urllib.error.URLError, ConnectionError):
        return False
