"""The buttons below a run on the Train tab are those that make sense at that moment."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from app.context import Context
from app.train import layout as train_layout
from app.train import tick as train_tick
from app.train.events import TrainEvents
from core.errors import RunError
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.device_lock import hold
from core.runs.store import Run
from core.system.hardware import Device
from core.system.process import process_started
from core.workspace import write_json


def _run(context: Context, **status: Any) -> Run:
    run = create_run(context.workspace, make_recipe({"name": "try"}), {"file": "x", "sha256": "y", "name": "z"})
    run.write_status(**status)
    return run


def _training(context: Context) -> Run:
    me = {"pid": os.getpid(), "pid_started": process_started(os.getpid()), "started": time.time()}
    return _run(context, state="training", step=57, total=200, **me)


def _shown(tab: train_layout.TrainTab, updates: dict[Any, Any]) -> set[str]:
    names = ("stop", "end_now", "bell", "resume", "chat", "again")
    return {name for name in names if updates[getattr(tab, name)].visible}


def test_a_run_at_work_can_be_stopped_and_then_ended(train_tab: train_layout.TrainTab, context: Context) -> None:
    run, seen = _training(context), {}
    assert _shown(train_tab, train_tick.tick(train_tab, context, seen)) == {"stop", "bell"}
    pressed = TrainEvents(train_tab, context).stop()
    assert "Stopping after this step" in pressed[train_tab.said]
    assert _shown(train_tab, train_tick.tick(train_tab, context, seen)) == {"end_now", "bell"}
    run.write_status(state="stopped")
    (run.dir / "checkpoints" / "40").mkdir()
    assert _shown(train_tab, train_tick.tick(train_tab, context, seen)) == {"resume", "again"}


def test_a_run_that_hangs_can_be_ended_at_once(train_tab: train_layout.TrainTab, context: Context) -> None:
    run, seen = _training(context), {}
    train_tick.tick(train_tab, context, seen)
    said = {"pid": os.getpid(), "beat": 9, "at": time.monotonic(), "seconds": 999.0, "doing": "step", "since": 300.0}
    said |= {"step": 57, "saved_step": 40, "last_step_seconds": 2.0, "usual": {"step": 2.0}, "card": {}}
    write_json(run.dir / "pulse.json", said)
    assert _shown(train_tab, train_tick.tick(train_tab, context, seen)) == {"stop", "end_now", "bell"}


def test_ending_says_what_came_of_it(
    train_tab: train_layout.TrainTab, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    _training(context)
    events = TrainEvents(train_tab, context)
    monkeypatch.setattr(context.supervisor, "kill", lambda run: f"Ended at once, at step {run.status().step}.")
    assert "Ended at once, at step 57." in events.end_now()[train_tab.said]

    def stuck(run: Run) -> None:
        raise RunError("The system does not let go of the worker.")

    monkeypatch.setattr(context.supervisor, "kill", stuck)
    assert "does not let go" in events.end_now()[train_tab.said]


def test_a_run_in_the_queue_is_taken_out_of_it(train_tab: train_layout.TrainTab, context: Context) -> None:
    run, seen = _run(context, state="queued"), {}
    updates = train_tick.tick(train_tab, context, seen)
    assert updates[train_tab.stop].value == "Take out of the queue"
    assert "Taken out" in TrainEvents(train_tab, context).stop()[train_tab.said]
    assert run.status().state == "stopped"


def test_a_run_that_cannot_be_resumed_says_why(train_tab: train_layout.TrainTab, context: Context) -> None:
    _run(context, state="stopped")
    assert "it holds no whole checkpoint" in TrainEvents(train_tab, context).resume()[train_tab.said]


def test_who_holds_the_gpu_is_said_before_the_start(
    train_tab: train_layout.TrainTab, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.runs.device_lock.device", lambda: Device("cuda", "Card", 2**34, 2**33))
    assert train_tick.parts(context)["held"] == ""
    with hold(context.workspace, "chat", "SmolLM2 <b>"):
        said = train_tick.parts(context)["held"]
        assert "The chat with “SmolLM2 &lt;b&gt;” holds the GPU. A run that you start asks for it" in said
    assert train_tick.parts(context)["held"] == ""
