"""The real app as a process of its own, and a real Chromium looking at it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from core.runs.supervisor import Supervisor
from core.workspace import ROOT, Workspace

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
expect.set_options(timeout=30_000)  # ms; on two cores that train beside it the page has to wait its turn


@dataclass(frozen=True)
class App:
    """A served workspace: the process that listens and the address it printed."""

    process: subprocess.Popen[str]
    url: str
    workspace: Workspace


def serve(folder: Path, *options: str) -> App:
    """Start the app on a workspace of its own and wait for the line with its address."""
    command = [
        sys.executable,
        "-m",
        "core.cli",
        "ui",
        "--no-browser",
        "--port",
        "0",
        "--data-dir",
        str(folder),
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "http://" in line, f"the app said {line!r} instead of its address"
    return App(process, line.split()[-1], Workspace(folder.resolve()))


def end(app: App) -> None:
    """End the app and whatever still trains on its workspace."""
    app.process.terminate()
    app.process.wait(timeout=30)
    supervisor = Supervisor(app.workspace)
    while (run := supervisor.current()) is not None:
        supervisor.kill(run)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One app for a file's tests."""
    running = serve(tmp_path_factory.mktemp("workspace"))
    yield running
    end(running)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """The system's Chromium."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def page(app: App, browser: Browser) -> Iterator[Page]:
    """The app's page in a browser that has never been there, which must not meet a script error."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.set_default_timeout(60_000)
    opened.goto(app.url)
    opened.get_by_text("are free now").wait_for()  # the page has looked up what it shows
    yield opened
    context.close()
    assert not errors


def wait_until(what: str, holds: object, seconds: float = 120) -> None:
    """Wait until `holds()` is true; `what` says in the failure what did not come."""
    assert callable(holds)
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.25)
