"""A run in the test's own process, on the card that it sees: without the ten seconds that a process takes to start."""

import os
from pathlib import Path
from typing import Any
from unittest import mock

from core.launch.submit import submit
from core.recipe import make_recipe
from core.runs.store import Run
from core.runs.tail import Tail
from core.train import worker
from core.workspace import Workspace
from tests.core.queue_only import QueueOnly


def settings(model: Path, rows: Path, **more: Any) -> dict[str, Any]:
    """A short run of the tiny model; `more` goes before it."""
    return {
        "model": str(model),
        "data.path": str(rows),
        "lora.rank": 4,
        "train.effective_batch": 4,
        "train.learning_rate": 0.01,
        "train.max_steps": 4,
        "evaluation.times": 1,
        **more,
    }


def train(workspace: Workspace, values: dict[str, Any]) -> Run:
    """Submit a run of these settings and train it here. It may have failed: ask its status."""
    run = submit(make_recipe(values), workspace, QueueOnly())
    return go(run)


def go(run: Run) -> Run:
    """Train the queued `run` here."""
    run.write_status(pid=os.getpid(), state="preparing")
    with mock.patch.dict(os.environ):  # it claims a card there
        worker.main(str(run.dir))
    return run


def losses(run: Run) -> list[float]:
    """The loss of each step."""
    return [row["loss"] for row in Tail(run.dir / "metrics.jsonl").read() if "loss" in row]
