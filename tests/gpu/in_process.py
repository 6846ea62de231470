"""A run in the test's own process, on the card that it sees: without the ten seconds that a process takes to start."""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from core.launch.submit import submit
from core.recipe import make_recipe
from core.runs.resume import resume
from core.runs.store import Run
from core.runs.tail import Tail
from core.train import worker
from core.workspace import Workspace
from tests.core.queue_only import QueueOnly

_left_before: dict[str, int] = {}


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
    return go(submit(make_recipe(values), workspace, QueueOnly()))


def go(run: Run) -> Run:
    """Train the queued `run` here."""
    run.write_status(pid=os.getpid(), state="preparing")
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()  # a run's own count as its tensors
    _left_before[run.id] = torch.cuda.memory_allocated()
    with mock.patch.dict(os.environ):  # it claims a card there
        worker.main(str(run.dir))
    return run


def peaks(run: Run) -> tuple[int, int]:
    """The run's tensors at their peak, in bytes: counted and predicted.

    What an earlier test left on the card is not the run's: one that makes a pass fail in its middle leaves some.
    """
    counted, predicted = (run.result()[key]["tensors"] for key in ("peak_bytes", "predicted_peak_bytes"))
    return counted - _left_before[run.id], predicted


def finished(run: Run) -> Run:
    """The run, which must have finished."""
    status = run.status()
    assert status.state == "finished", status.message
    return run


def go_on(run: Run, workspace: Workspace) -> Run:
    """Resume the run, which was stopped, and train it to its end here."""
    assert run.status().state == "stopped", run.status().message
    return go(resume(run, QueueOnly(workspace)))


def losses(run: Run) -> list[float]:
    """The loss of each step."""
    return [row["loss"] for row in Tail(run.dir / "metrics.jsonl").read() if "loss" in row]


def events(run: Run, kind: str = "warning") -> str:
    """What the run told a person, a line each."""
    return "\n".join(row["message"] for row in Tail(run.dir / "events.jsonl").read() if row["kind"] == kind)


def in_fp32(patch: pytest.MonkeyPatch) -> None:
    """Let cards compute in fp32, as this machine's processor does: what is left of a difference is rounding."""
    import core.memory.device
    import core.model.load

    for module in (core.model.load, core.memory.device):
        patch.setattr(module, "compute_dtype", lambda *_: ("float32", "the test compares it with the CPU"))


@contextmanager
def the_cpu() -> Iterator[None]:
    """Inside, a run sees no card. Its memory limit, which is this process', is taken off again."""
    assert sys.platform == "linux"
    import resource

    import torch

    torch.cuda.device_count()  # as CUDA does, the stand-in keeps to what the variable said at first
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


def choose(patch: pytest.MonkeyPatch, **strategy: Any) -> None:
    """Let the plan choose this strategy, such as `checkpointing="half"`, whether or not a faster one fits."""
    import core.memory.plan

    patch.setattr(core.memory.plan, "_fastest", lambda problem: replace(problem.strategies[0], **strategy))


def after_step(patch: pytest.MonkeyPatch, step: int, act: Callable[[Any], object]) -> None:
    """Call `act` with the run's watcher when `step` has been taken."""
    from core.train.watcher import Watcher

    write = Watcher.write_step

    def and_act(self: Watcher, at: int, logs: dict[str, float]) -> None:
        write(self, at, logs)
        if at == step:
            act(self)

    patch.setattr(Watcher, "write_step", and_act)


def stop(watcher: Any) -> None:
    """For `after_step`: ask the run to stop."""
    watcher.run.request("stop")
