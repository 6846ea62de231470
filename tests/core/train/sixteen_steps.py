"""A run of sixteen steps, as the tests of checkpoints and of resuming train it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.launch.submit import submit
from core.recipe import make_recipe
from core.runs.store import Run
from core.workspace import Workspace
from tests.core.queue_only import QueueOnly

STEPS = 16


def sixteen_steps(tiny: Path, rows_file: Path, workspace: Workspace, supervisor: Any = None, **settings: Any) -> Run:
    """Sixteen steps over ten steps' rows, dropout on: the first pass over the data ends in mid-way."""
    values = {
        "model": str(tiny),
        "data.path": str(rows_file),
        "data.eval_fraction": 0.1,
        "lora.rank": 4,
        "lora.dropout": 0.2,
        "train.effective_batch": 4,
        "train.learning_rate": 0.01,
        "train.max_steps": STEPS,
        "train.neftune_alpha": 5,
        "evaluation.prompts": ["hello there"],
        "evaluation.max_new_tokens": 2,
        "checkpoint.every_steps": 4,
        "checkpoint.keep": 3,
    }
    return submit(make_recipe({**values, **settings}), workspace, supervisor or QueueOnly(workspace))
