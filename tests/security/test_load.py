"""Under load: many pages watch one run at the cost of one, what is too much is refused, and all of it recovers.

The hundred pages are emulated: bench/_pages.py asks of the server what a page asks, which is held against Chromium
here. The worker, where it is not a real one, is this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from app.main import Server
from app.server.guard import Guard
from app.server.load_limits import JOIN, LoadLimits
from bench._pages import Pages
from bench.load import main, served
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.store import Run
from core.system.process import process_started
from core.workspace import Workspace

Result = TypeVar("Result")
EVERY = 0.1
# What a browser fetches once and keeps.
FILES = re.compile(r"\.(js|css|woff2|svg|png|json)$|/theme|/assets/")
# The browser of the tests never goes to the background: the page is made to believe that it has.
TURN = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


class Training:
    """A run that this process is at: a step, with its figures, ten times a second."""

    def __init__(self, workspace: Workspace) -> None:
        self.run = create_run(workspace, make_recipe({"name": "watched"}), {"file": "x", "sha256": "y", "name": "z"})
        self.step = 0
        self._ended = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while not self._ended.wait(EVERY):
            self._write()

    def _write(self) -> None:
        self.step += 1
        self.run.append("metrics.jsonl", {"step": self.step, "time": time.time(), "loss": 3 / self.step})
        self.run.append("memory.jsonl", {"seconds": self.step * EVERY, "step": self.step, "process_bytes": 2**30})
        me = {"pid": os.getpid(), "pid_started": process_started(os.getpid()), "started": time.time() - self.step}
        self.run.write_status(state="training", step=self.step, total=1_000_000, **me)

    def end(self) -> Run:
        """Let it be finished."""
        self._ended.set()
        self._thread.join()
        self.run.write_status(state="finished", ended=time.time(), message="Finished.")
        return self.run


@contextlib.contextmanager
def _training(workspace: Workspace) -> Iterator[Training]:
    training = Training(workspace)
    try:
        yield training
    finally:
        training.end()


def _run(pages: Coroutine[Any, Any, Result]) -> Result:
    """In a thread of its own: Playwright has a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, pages).result()


def _address(guard: Guard) -> str:
    return f"http://127.0.0.1:{guard.door.names.port}/?token={guard.door.token}"


def test_pages_that_watch_a_run_ask_the_server_for_nothing(server: Server, guard: Guard) -> None:
    events = server.demo._queue

    async def watch() -> None:
        async with Pages(_address(guard), 2) as opened:
            await asyncio.sleep(0.3)
            opened.forget()
            before = events.events_recorded
            await asyncio.sleep(1.3)
            assert opened.errors == []
            assert events.events_recorded == before, "Gradio runs nothing for them"
            for page in opened.pages:
                assert page.asked == [] and page.messages >= 1
                assert "watched" in page.shown["strip"] and "<svg" in page.shown["loss"]
            training.end()
            end = time.monotonic() + 10
            while not all("POST /gradio_api/queue/join" in page.asked for page in opened.pages):
                assert time.monotonic() < end, "the end changes the buttons: each page asks once"
                await asyncio.sleep(0.05)

    with _training(server.context.workspace) as training:
        _run(watch())


def test_a_full_queue_is_told_so_and_takes_events_again(server: Server, guard: Guard) -> None:
    limits = guard.app
    assert isinstance(limits, LoadLimits)
    base = f"http://127.0.0.1:{guard.door.names.port}"
    with httpx.Client(base_url=base, timeout=30) as client:
        client.get(f"/?token={guard.door.token}")
        every = client.get("/config").json()["dependencies"]
        tick = next(each["id"] for each in every if any(event == "tick_chat" for _, event in each["targets"]))
        press = {"data": [None] * 3, "fn_index": tick, "session_hash": "one"}
        most, limits.most_waiting = limits.most_waiting, len(server.demo._queue)
        try:
            refused = client.post(JOIN, json=press)
            page = client.get("/")
        finally:
            limits.most_waiting = most
        assert refused.status_code == 503 and refused.headers["retry-after"] == "5"
        assert "Try again in a few seconds." in refused.json()["detail"]
        assert refused.headers["x-content-type-options"] == "nosniff"
        assert page.status_code == 200, "all that need not wait is answered"
        assert client.post(JOIN, json=press).status_code == 200


@pytest.mark.full
def test_a_hundred_pages_cost_at_most_twice_what_one_does() -> None:
    rows = main(rounds=1)
    assert [row for row in rows if row["holds"] is False] == []
    figures = {row["name"]: row["value"] for row in rows}
    assert figures["messages a page hears in a second"] > 0.7, figures
    assert figures["the longest that a page heard nothing"] < 10, figures


@pytest.mark.full
def test_pages_that_take_nothing_take_no_memory_and_delay_nobody(tmp_path: Path) -> None:
    with served(tmp_path) as (process, url), _training(Workspace(tmp_path.resolve())):
        address, server = urlsplit(url), psutil.Process(process.pid)

        async def crowd() -> None:
            async with Pages(url, 2) as opened:
                stuck = [_stuck(address.port or 0, address.query) for _ in range(50)]
                await asyncio.sleep(5)
                opened.forget()
                before = server.memory_info().rss
                await asyncio.sleep(25)
                assert server.memory_info().rss - before < 12 * 2**20
                assert opened.errors == []
                assert all(max(page.gaps) < 5 and page.messages > 15 for page in opened.pages)
                for connection in stuck:
                    connection.close()

        _run(crowd())


def _stuck(port: int, query: str) -> socket.socket:
    """Asks for the feed and never reads what comes."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    cookie = f"nibble_{port}={query.removeprefix('token=')}"
    asked = f"GET /nibble/live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n"
    connection.sendall(asked.encode())
    return connection


@dataclass(frozen=True)
class Watched:
    """A page in Chromium on a run at work, and all that it asks of the server from the first on."""

    page: Page
    training: Training
    asked: list[str]
    url: str
    server: subprocess.Popen[str]

    def shows(self, state: str) -> None:
        """Wait until it shows the run in this state."""
        expect(self.page.locator(".nb-side .nb-card .nb-state").locator("visible=true").first).to_have_text(state)

    def rests(self) -> None:
        """Wait until it has asked for all that an opened page asks for; the helper takes a while to answer."""
        for _ in range(10):
            before = len(self.asked)
            self.page.wait_for_timeout(12_000)
            if len(self.asked) == before:
                return
        raise AssertionError(f"it goes on asking: {self.asked[-5:]}")

    def shows_the_end(self) -> None:
        """Wait until both have arrived: what the feed sends, and what the page asks for when it rings."""
        self.shows("Finished")
        expect(self.page.get_by_role("button", name="New run")).to_be_visible()


@pytest.fixture
def watched(tmp_path: Path, browser: Browser) -> Iterator[Watched]:
    with served(tmp_path) as (process, url), _training(Workspace(tmp_path.resolve())) as training:
        context = browser.new_context(viewport={"width": 1400, "height": 1000})
        page = context.new_page()
        found = Watched(page, training, [], url, process)
        page.on("request", lambda each: found.asked.append(_asked(each.method, each.url)))
        page.goto(url)
        page.get_by_text("are free now").wait_for(timeout=60_000)
        found.shows("Training")
        yield found
        context.close()


def _asked(method: str, url: str) -> str:
    path = urlsplit(url).path
    return f"{method} {'/gradio_api/heartbeat' if '/heartbeat/' in path else path}"


@pytest.mark.full
@pytest.mark.browser
def test_the_emulated_page_asks_what_a_real_one_asks(watched: Watched) -> None:
    watched.rests()
    opening = {each for each in watched.asked if not FILES.search(each)}
    watched.asked.clear()
    watched.page.wait_for_timeout(5_000)
    assert watched.asked == [], "it watches, and asks for nothing"
    watched.training.end()
    watched.shows_the_end()
    at_the_end = set(watched.asked)

    async def emulated(run: Training) -> tuple[set[str], set[str]]:
        async with Pages(watched.url, 1) as opened:
            (like,) = opened.pages
            await asyncio.sleep(2)
            first = set(like.asked)
            opened.forget()
            run.end()
            await asyncio.sleep(4)
            return first, set(like.asked)

    with _training(Workspace(watched.training.run.dir.parents[1])) as another:
        first, then = _run(emulated(another))
    assert opening - first == set(), "asked by Chromium alone"
    assert then == at_the_end == {"POST /gradio_api/queue/join", "GET /gradio_api/queue/data"}


@pytest.mark.full
@pytest.mark.browser
def test_a_page_says_that_its_server_is_gone_and_goes_on_with_the_next(tmp_path: Path, watched: Watched) -> None:
    page = watched.page
    step = page.locator(".nb-figure:has-text('step') b").locator("visible=true").first
    watched.server.send_signal(signal.SIGKILL)
    watched.server.wait()
    expect(page.locator(".nb-lost")).to_contain_text("is not responding")
    shown = step.inner_text()
    page.wait_for_timeout(2_000)
    with served(tmp_path, urlsplit(watched.url).port or 0):
        expect(page.locator(".nb-lost")).to_be_empty()
        expect(step).not_to_have_text(shown)
        watched.training.end()
        watched.shows_the_end()


@pytest.mark.full
@pytest.mark.browser
def test_a_page_in_the_background_holds_no_connection_and_comes_back_up_to_date(watched: Watched) -> None:
    watched.rests()
    page, asked = watched.page, watched.asked
    page.evaluate(TURN, True)
    page.wait_for_timeout(6_000)
    assert asked[-1] == "GET /nibble/live", "it asks once"
    asked.clear()
    title = page.title()
    page.wait_for_timeout(11_000)
    assert asked == ["GET /nibble/live"], "it asks now and then"
    assert page.title() != title
    watched.training.end()
    page.evaluate(TURN, False)
    watched.shows_the_end()
