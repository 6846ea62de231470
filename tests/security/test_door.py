"""The door in a real Chromium: others sign in with the password that was told once, and charts are drawn behind it."""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from core.system.addresses import lan_address
from core.workspace import Workspace
from tests.app_process import next_line, start
from tests.ended import ended_run

pytestmark = [pytest.mark.browser, pytest.mark.full]


@dataclass(frozen=True)
class Listening:
    """An app that others reach: where, and with which password."""

    folder: Path
    url: str
    port: int
    password: str
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """The app with --listen and no --auth, on a workspace with a run in it."""
    folder = tmp_path_factory.mktemp("listening")
    ended_run(Workspace.open(folder), "A run with curves", steps=40)
    process = start(folder, "--port", "0", "--listen")
    url = next_line(process).split()[-1]
    told = next_line(process)
    while not told.startswith("Sign in as:"):
        told = next_line(process)
    password = told.partition("password ")[2].split()[0]
    yield Listening(folder, url, int(url.rstrip("/").rpartition(":")[2]), password, process)
    process.terminate()
    process.wait(30)


def _sign_in(page: Page, password: str) -> None:
    page.get_by_label("Name").fill("nibble")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_others_sign_in_and_see_the_app_and_its_charts(listening: Listening, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    blocked: list[str] = []
    page.on("console", lambda said: blocked.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(listening.url)
    assert "token" not in listening.url
    _sign_in(page, "wrong")
    expect(page.get_by_role("alert")).to_contain_text("Wrong name or password")
    _sign_in(page, listening.password)
    page.get_by_text("are free now").wait_for(timeout=60_000)
    held = {cookie["name"]: cookie for cookie in context.cookies()}[f"nibble_{listening.port}"]
    assert held["httpOnly"] and held["sameSite"] == "Strict" and listening.password not in held["value"]
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("tab", name="Runs").click()
    page.get_by_role("button", name="A run with curves").click()
    curve = page.locator('path[data-name^="train"]').locator("visible=true").first
    curve.wait_for()
    box = curve.bounding_box()
    assert box is not None and box["width"] > 100 and curve.evaluate("path => path.getTotalLength()") > 100
    page.reload()
    page.get_by_text("are free now").wait_for(timeout=60_000)
    # Gradio's template holds inline scripts that its page does without; nothing else may have been stopped.
    assert all("inline script" in said for said in blocked), blocked
    context.close()


def test_from_the_network_there_is_the_login_and_nothing_under_other_names(listening: Listening) -> None:
    address = lan_address() or "127.0.0.1"
    wire = http.client.HTTPConnection(address, listening.port, timeout=20)
    for host, status in ((f"{address}:{listening.port}", 401), ("evil.example", 421), (f"{address}:1", 421)):
        for path in ("/", "/config", "/gradio_api/startup-events", "/gradio_api/file=/etc/hostname"):
            wire.request("GET", path, headers={"Host": host})
            answer = wire.getresponse()
            assert answer.status == status and b"gradio" not in answer.read(), (host, path)
    wire.close()


def test_the_password_is_written_nowhere(listening: Listening) -> None:
    for file in listening.folder.rglob("*"):
        assert not file.is_file() or listening.password.encode() not in file.read_bytes(), file
