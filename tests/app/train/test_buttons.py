"""The buttons below a run on the Train tab are those that make sense at that moment."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from app.context import Context
from app.train.wire import TrainTab
from core.errors import RunError
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.device_lock import hold
from core.runs.store import Run
from core.system.hardware import Device, Used
from core.system.process import process_started
from core.workspace import write_json


def _run(context: Context, **status: Any) -> Run:
    run = create_run(context.workspace, make_recipe({"name": "try"}), {"file": "x", "sha256": "y", "name": "z"})
    run.write_status(**status)
    return run


def _training(context: Context) -> Run:
    me = {"pid": os.getpid(), "pid_started": process_started(os.getpid()), "started": time.time()}
    return _run(context, state="training", step=57, total=200, **me)


def _shown(tab: TrainTab, updates: dict[Any, Any]) -> set[str]:
    names = ("stop", "end_now", "bell", "resume", "chat", "again")
    return {name for name in names if updates[getattr(tab.layout.run, name)].visible}


def test_a_run_at_work_can_be_stopped_and_then_ended(train_tab: TrainTab, context: Context) -> None:
    run, seen = _training(context), {}
    assert _shown(train_tab, train_tab.tick(seen)) == {"stop", "bell"}
    pressed = train_tab.events.stop()
    assert "Stopping after this step" in pressed[train_tab.layout.form.message]
    assert _shown(train_tab, train_tab.tick(seen)) == {"end_now", "bell"}
    run.write_status(state="stopped")
    (run.dir / "checkpoints" / "40").mkdir()
    assert _shown(train_tab, train_tab.tick(seen)) == {"resume", "again"}


def test_a_run_that_hangs_can_be_ended_at_once(train_tab: TrainTab, context: Context) -> None:
    run, seen = _training(context), {}
    train_tab.tick(seen)
    said = {"pid": os.getpid(), "beat": 9, "at": time.monotonic(), "seconds": 999.0, "doing": "step", "since": 300.0}
    said |= {"step": 57, "saved_step": 40, "last_step_seconds": 2.0, "usual": {"step": 2.0}, "card": {}}
    write_json(run.dir / "pulse.json", said)
    assert _shown(train_tab, train_tab.tick(seen)) == {"stop", "end_now", "bell"}


def test_ending_says_what_came_of_it(train_tab: TrainTab, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    _training(context)
    events = train_tab.events
    monkeypatch.setattr(context.supervisor, "kill", lambda run: f"Ended at once, at step {run.status().step}.")
    assert "Ended at once, at step 57." in events.end_now()[train_tab.layout.form.message]

    def stuck(run: Run) -> None:
        raise RunError("The system cannot end the worker.")

    monkeypatch.setattr(context.supervisor, "kill", stuck)
    assert "cannot end the worker" in events.end_now()[train_tab.layout.form.message]


def test_a_run_in_the_queue_is_taken_out_of_it(train_tab: TrainTab, context: Context) -> None:
    run, seen = _run(context, state="queued"), {}
    updates = train_tab.tick(seen)
    assert updates[train_tab.layout.run.stop].value == "Remove from queue"
    assert "Removed" in train_tab.events.stop()[train_tab.layout.form.message]
    assert run.status().state == "stopped"


def test_a_run_that_cannot_be_resumed_says_why(train_tab: TrainTab, context: Context) -> None:
    _run(context, state="stopped")
    assert "it has no complete checkpoint" in train_tab.events.resume()[train_tab.layout.form.message]


def test_who_holds_the_gpu_is_said_before_the_start(
    train_tab: TrainTab, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.runs.device_lock.device", lambda: Device("cuda", "Card", 2**34, 2**33))
    monkeypatch.setattr("core.runs.device_lock.device_used_bytes", lambda *_: Used(None, 0))
    assert train_tab.parts()["held"] == ""
    with hold(context.workspace, "chat", "SmolLM2 <b>"):
        said = train_tab.parts()["held"]
        assert "The chat with “SmolLM2 &lt;b&gt;” is using the GPU. A run that you start waits for it" in said
    assert train_tab.parts()["held"] == ""
