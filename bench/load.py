"""Load: the processor time that a hundred pages watching a training run cost the server, against one page.

The real app is served on a workspace where a real worker trains the starter. The worker has one core, the server and
the pages have another, so that the server's share can be told apart. The pages are emulated (_pages.py): each
requests what a page in Chromium does, but draws nothing. One page and a hundred take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench._pages import Pages
from core.launch.submit import prepare
from core.recipe import make_recipe
from core.runs.store import Run
from core.runs.supervisor import Supervisor
from core.workspace import ROOT, Workspace

PAGES = 100
SECONDS = 60.0
ROUNDS = 3
# Time to settle before measuring: pages that were just opened, imports, caches.
SETTLE_SECONDS = 5.0
RATIO_BAR = 2.0
GROWTH_BAR_MIB = 8.0
# Far more steps than are watched: the run is stopped when everything is measured.
RECIPE = {
    "model": "starter",
    "data.path": "pirate",
    "data.max_length": 64,
    "lora.rank": 4,
    "train.effective_batch": 1,
    "train.max_steps": 1_000_000,
    "evaluation.times": 1,
    "data.eval_max_rows": 2,
}


@dataclass(frozen=True)
class Window:
    """Measured while some number of pages watched: processor seconds per second, resident bytes, bytes sent."""

    pages: int
    cpu: float
    memory_before: int
    memory_after: int
    messages_a_second: float
    bytes_a_message: float
    longest_gap: float
    errors: list[str]


def main(seed: int = 0, pages: int = PAGES, seconds: float = SECONDS, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Rows of figures, as `bench NAME --json` prints them. Nothing is random, so `seed` is not used."""
    with tempfile.TemporaryDirectory() as folder, _pinned(), served(Path(folder)) as (server, url):
        run = start(Workspace(Path(folder).resolve()))
        try:
            pin(server.pid, last=True)
            windows = asyncio.run(_rounds(url, psutil.Process(server.pid), (1, pages), seconds, rounds))
        finally:
            Supervisor(Workspace(Path(folder).resolve())).kill(run)
    return rows_of(windows, pages)


async def _rounds(
    url: str, server: psutil.Process, counts: tuple[int, int], seconds: float, rounds: int
) -> list[Window]:
    windows = []
    for _ in range(rounds):
        for count in counts:
            windows.append(await watch(url, server, count, seconds))
    return windows


async def watch(url: str, server: psutil.Process, count: int, seconds: float) -> Window:
    """Open the pages, let them settle, and measure the server while they watch."""
    async with Pages(url, count) as opened:
        await asyncio.sleep(SETTLE_SECONDS)
        opened.forget()
        before, used, began = server.memory_info().rss, _cpu(server), time.monotonic()
        await asyncio.sleep(seconds)
        took, used, after = time.monotonic() - began, _cpu(server) - used, server.memory_info().rss
        messages = sum(page.messages for page in opened.pages)
        sent = sum(page.bytes for page in opened.pages) / max(1, messages)
        gap = max((gap for page in opened.pages for gap in page.gaps), default=seconds)
        return Window(count, used / took, before, after, messages / count / took, sent, gap, opened.errors)


def rows_of(windows: list[Window], pages: int) -> list[dict[str, Any]]:
    """The rounds' medians as rows of figures."""
    one = [window for window in windows if window.pages == 1]
    many = [window for window in windows if window.pages == pages]
    ratio = statistics.median(more.cpu / less.cpu for less, more in zip(one, many, strict=True))
    reference, cost = (1000 * statistics.median(each.cpu for each in windows) for windows in (one, many))
    growth = statistics.median((each.memory_after - each.memory_before) / 2**20 for each in many)
    errors = sum(len(window.errors) for window in windows)
    size = statistics.median(each.bytes_a_message for each in many) / 1024
    heard = [statistics.median(each.messages_a_second for each in windows) for windows in (many, one)]
    start, alone = (statistics.median(each.memory_before for each in windows) / 2**20 for windows in (many, one))
    return [
        _row("the server's processor time a second, 1 page", reference, "ms", None),
        _row(f"the server's processor time a second, {pages} pages", cost, "ms", reference),
        _row(f"{pages} pages against 1, median of the rounds", ratio, "times", 1.0, RATIO_BAR),
        _row(f"resident memory with {pages} pages, at the start", start, "MiB", alone),
        _row("how much it grows while they watch", growth, "MiB", 0.0, GROWTH_BAR_MIB),
        _row("errors on any page", errors, "", 0, 0),
        _row("messages a page hears in a second", heard[0], "", heard[1]),
        _row("what a message takes", size, "KiB", None),
        _row("the longest that a page heard nothing", max(each.longest_gap for each in many), "s", None),
    ]


def _row(name: str, value: float, unit: str, reference: float | None, bar: float | None = None) -> dict[str, Any]:
    holds = None if bar is None else value <= bar
    return {"name": name, "value": value, "unit": unit, "reference": reference, "bar": bar, "holds": holds}


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


@contextlib.contextmanager
def served(folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The app on a workspace of its own, and the address that it printed."""
    command = [sys.executable, "-m", "core.cli", "ui", "--no-browser", "--port", str(port), "--data-dir", str(folder)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait(30)


def start(workspace: Workspace) -> Run:
    """A run that trains on the first core until it is stopped."""
    run = prepare(make_recipe({**RECIPE, "name": "watched"}), workspace)
    end = time.monotonic() + 180
    while run.status().step < 3:
        if time.monotonic() > end:
            raise RuntimeError(f"The run did not start: {run.status()} {run.log_tail()}")
        time.sleep(0.2)
    pin(int(run.status().pid or 0), last=False)
    return run


def pin(pid: int, last: bool) -> None:
    """Pin a process, with all its threads, to the last or the first core, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        cores = range(psutil.cpu_count() or 1)
        for thread in psutil.Process(pid).threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, {cores[-1 if last else 0]})


@contextlib.contextmanager
def _pinned() -> Iterator[None]:
    """This process, which emulates the pages, shares the server's core meanwhile."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    pin(os.getpid(), last=True)
    try:
        yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)
