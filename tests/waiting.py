"""Waiting for something to come true, with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable

from core.runs.store import OPEN, Run
from core.runs.tail import Tail


def wait_until(what: str, holds: Callable[[], object], seconds: float = 120) -> None:
    """Wait until `holds()`; `what` says in the failure what did not come."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)


def until(holds: Callable[[], object], seconds: float = 20) -> None:
    """`wait_until` for what comes at once, such as the end of a thread's work."""
    wait_until("what the test waits for", holds, seconds)


def ended(run: Run, seconds: float = 120) -> str:
    """Wait for the end of `run`; returns the state that it ended in."""
    try:
        wait_until("the run ends", lambda: run.status().state not in OPEN, seconds)
    except AssertionError as late:
        events = Tail(run.dir / "events.jsonl").read()[-2:]
        raise AssertionError(f"{late} {run.status()} {run.log_tail()} {events}") from None
    return run.status().state
