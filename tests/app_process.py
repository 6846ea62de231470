"""The app as a process of its own: started, and the address that it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from core.runs.supervisor import Supervisor
from core.workspace import ROOT, Workspace


def start(folder: Path, *options: str, **variables: str) -> subprocess.Popen[str]:
    """The app on `folder`, with more in its environment."""
    command = [sys.executable, "-m", "core.cli", "ui", "--no-browser", "--data-dir", str(folder), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


def next_line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints; the first has its address."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, "the app ended without a word"
    return line


@dataclass(frozen=True)
class App:
    """A served workspace: the process that listens and the address it printed."""

    process: subprocess.Popen[str]
    url: str
    workspace: Workspace


def serve(folder: Path, *options: str, **variables: str) -> App:
    """Start the app on a workspace of its own and wait for the line with its address."""
    process = start(folder, "--port", "0", *options, HF_HUB_OFFLINE="1", **variables)
    line = next_line(process)
    assert "http://" in line, f"the app said {line!r} instead of its address"
    return App(process, line.split()[-1], Workspace(folder.resolve()))


def end(app: App) -> None:
    """End the app and whatever still trains on its workspace."""
    app.process.terminate()
    app.process.wait(timeout=30)
    supervisor = Supervisor(app.workspace)
    while (run := supervisor.current()) is not None:
        supervisor.kill(run)
