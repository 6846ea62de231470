"""Resumes a run from a checkpoint exactly, as if it had never ended. Read by the worker before it loads the model."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from core.errors import RunError
from core.memory.strategy import Strategy
from core.runs.manifest import newest_valid
from core.runs.store import Run
from core.system.hardware import compute_dtype, device
from core.train.checkpoints import PROGRESS, load_state, restore_adapter, restore_random_states, restore_training
from core.train.decide import Choices
from core.workspace import SCAN_SECONDS, patiently, read_json, write_json

# What is cut back to the checkpoint's step. Events stay: they say what happened.
CUT_BACK = ("metrics.jsonl", "samples.jsonl", "memory.jsonl")


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint to resume from: its folder, and the run's state at its step."""

    folder: Path
    step: int
    progress: dict[str, Any]

    @property
    def strategy(self) -> Strategy:
        """The run's last strategy: the plan's, or a more frugal one where memory had run out."""
        return _strategy(self.progress["way"])

    def choices(self) -> Choices:
        """What was decided before the first step. The run keeps it: another strategy would round differently."""
        settled = self.progress["settled"]
        return Choices(_strategy(settled["way"]), settled["packed"], None, [], settled["tokens_at_once"])


def _strategy(kept: dict[str, Any]) -> Strategy:
    """A strategy as a checkpoint holds it. Earlier versions fused LoRA layers where a run computed in fp32."""
    return Strategy(**{"fused_lora": compute_dtype(device().kind)[0] == "float32", **kept})


def read_resume_point(folder: Path | None) -> ResumePoint | None:
    """The checkpoint in `folder`; None for none. Raises RunError where it was not made by this version of Nibble."""
    if folder is None:
        return None
    progress = read_json(folder / PROGRESS)
    if not isinstance(progress, dict):
        raise RunError(
            f"The checkpoint of step {folder.name} was made by an earlier version of Nibble and cannot be resumed."
        )
    return ResumePoint(folder, int(folder.name), progress)


def find_resume_point(run: Run) -> ResumePoint | None:
    """Where a resumed run continues; None for a new run. Its files are cut back to that step.

    Checkpoints that are passed over are named in the events. Raises RunError where none is whole.
    """
    if run.status().resumed_from_step is None:
        return None
    folder, passed_over = newest_valid(run.dir / "checkpoints")
    for step, wrong in passed_over:
        run.event("warning", f"The checkpoint of step {int(step):,} is skipped: {wrong}.")
    start = read_resume_point(folder)
    if start is None:
        raise RunError(f"Run {run.id} cannot be resumed: none of its checkpoints is complete.")
    for file in CUT_BACK:
        damaged = cut_back(run.dir / file, start.step)
        if damaged:
            run.event("warning", f"{file} held {damaged:,} damaged line{'s' * (damaged > 1)}, which cannot be read.")
    plan = run.plan()
    if "changed" in plan:
        changed = [each for each in plan["changed"] if each["step"] <= start.step]
        write_json(run.dir / "plan.json", {**plan, "changed": changed})
    run.write_status(resumed_from_step=start.step, step=start.step)
    run.event("resumed", f"Resumed from step {start.step:,}.")
    return start


def cut_back(file: Path, step: int) -> int:
    """Leave only the lines up to `step`. Returns how many were damaged; one that a crash cut off does not count."""
    if not file.exists():
        return 0
    beside, damaged = file.with_name(f".{file.name}.partial"), 0
    with beside.open("wb") as kept, file.open("rb") as lines:
        for line in lines:
            at = _step_of(line) if line.endswith(b"\n") else math.inf
            damaged += at is None
            if at is not None and at <= step:
                kept.write(line)
    patiently(lambda: beside.replace(file), SCAN_SECONDS)
    return damaged


def _step_of(line: bytes) -> float | None:
    """The step that a line is about; None where it cannot be read."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


class RestoreState(TrainerCallback):
    """Puts a trainer back to a checkpoint's state. It must come before the callbacks that read that state."""

    trainer: Any

    def __init__(self, start: ResumePoint) -> None:
        self.start: ResumePoint | None = start

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """The optimizer and the schedule have just been made."""
        if self.start is not None:
            restore_adapter(self.start.folder, self.trainer.model)
            restore_training(self.start.folder, self.trainer, args.learning_rate)
            state.global_step = self.trainer._globalstep_last_logged = self.start.step

    def on_step_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Only now, as asking for the first batch draws a number too."""
        if self.start is not None:
            restore_random_states(load_state(self.start.folder / "random.pt"))
            self.start = None
