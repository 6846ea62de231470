"""The server and the browser come and go, by force: a run does not notice, and is there again at once."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from core.launch.submit import prepare
from core.recipe import make_recipe
from core.runs.find import list_runs
from core.runs.store import OPEN, Run
from core.workspace import ROOT, Workspace
from tests.app_process import serve
from tests.faults.outcome import is_the_same
from tests.faults.place import RECIPE, SEED, Place, end
from tests.waiting import ended, wait_until

pytestmark = [pytest.mark.full, pytest.mark.browser]

# Long enough for a server to be killed and started meanwhile.
LONG = {"train.max_steps": 800, "checkpoint.every_steps": 100, "evaluation.times": 2}
SECONDS_TO_SHOW = 2.0


@pytest.fixture(scope="module")
def long_undisturbed(tmp_path_factory: pytest.TempPathFactory, warm) -> Run:
    run = Place(tmp_path_factory.mktemp("undisturbed"), warm).start(settings=LONG)
    assert ended(run, 300) == "finished"
    return run


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Servers that a test starts on its workspace, which are ended with it, and their runs too."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for server in started:
        server.kill()
        server.wait()
    for run in list_runs(Workspace(tmp_path)):
        end(run)


def _state(page: Page) -> Locator:
    return page.locator(".nb-side .nb-card .nb-state").locator("visible=true").first


def _step(page: Page) -> int:
    """The step that the page shows; 0 where it shows none."""
    shown = page.locator(".nb-figure:has-text('step') b").locator("visible=true")
    found = re.match(r"([\d,]+) of ", shown.first.inner_text()) if shown.count() else None
    return int(found[1].replace(",", "")) if found else 0


def _tab(browser: Browser, url: str) -> Page:
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    page.goto(url)
    return page


def test_two_tabs_a_closed_browser_and_a_killed_server(
    tmp_path: Path,
    browser: Browser,
    servers: list[subprocess.Popen[str]],
    long_undisturbed: Run,
) -> None:
    """The queue's own real worker, begun by the server that is killed."""
    app = serve(tmp_path)
    servers.append(app.process)
    run = prepare(make_recipe({**RECIPE, **LONG}), app.workspace)
    first, second = (_tab(browser, app.url) for _ in range(2))
    for page in (first, second):
        expect(_state(page)).to_have_text("Training", timeout=120_000)
        wait_until("it steps", lambda page=page: _step(page) > 3)
    first.context.close()
    seen = _step(second)
    wait_until("the other tab goes on", lambda: _step(second) > seen)
    seen = _step(second)
    app.process.kill()
    app.process.wait()
    assert run.status().active, "the worker does not need the server"

    again = serve(tmp_path)
    servers.append(again.process)
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    page.goto(again.url)
    loaded = time.monotonic()
    wait_until("the run is shown", lambda: _step(page) > seen, 30)
    took = time.monotonic() - loaded
    shown = _step(page)
    wait_until("it steps on", lambda: _step(page) > shown)
    assert [each.id for each in list_runs(again.workspace)] == [run.id]
    assert took < SECONDS_TO_SHOW, f"the run was shown after {took:.2f} s"
    assert ended(run, 300) == "finished", run.log_tail()
    expect(_state(page)).to_have_text("Finished")
    is_the_same(run, long_undisturbed)


def test_a_server_killed_at_random_moments(tmp_path: Path, servers: list[subprocess.Popen[str]], undisturbed) -> None:
    """Twenty times, while it starts, starts runs of the queue, and looks after them."""
    draw = random.Random(SEED)
    runs: list[Run] = []
    place = Place(tmp_path, None)  # type: ignore[arg-type]
    for number in range(20):
        if number % 5 == 0:
            runs.append(prepare(make_recipe(RECIPE), place.workspace))
        server = _server(tmp_path, servers)
        time.sleep(draw.uniform(0.5, 7))
        server.kill()
        server.wait()
        working = [run for run in runs if run.status().active]
        assert len(working) <= 1, "one at a time"
    _server(tmp_path, servers)
    wait_until("all have ended", lambda: all(run.status().state not in OPEN for run in runs), 300)
    assert {run.id for run in list_runs(place.workspace)} == {run.id for run in runs}
    for run in runs:
        assert run.status().state == "finished", (run.status(), run.log_tail())
        is_the_same(run, undisturbed)


def _server(folder: Path, servers: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "core.cli", "ui", "--no-browser", "--port", "0", "--data-dir", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    servers.append(server)
    return server


def _first_line(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    return server.stdout.readline()


def test_two_servers_on_one_workspace_are_one(tmp_path: Path, servers: list[subprocess.Popen[str]]) -> None:
    """Started in the same instant: the second says where the first is, and ends."""
    both = [_server(tmp_path, servers) for _ in range(2)]
    lines = [_first_line(each) for each in both]
    (ready,) = [line for line in lines if line.startswith("Nibble is ready: ")]
    (already,) = [line for line in lines if line.startswith("Nibble is already running: ")]
    assert ready.split()[-1] == already.split()[-1]
    wait_until("one has ended", lambda: [each.poll() for each in both].count(0) == 1, 30)
    (running,) = [each for each in both if each.poll() is None]
    running.kill()
    running.wait()
    assert _first_line(_server(tmp_path, servers)).startswith("Nibble is ready: "), "a dead one holds nothing"
