"""What the fault suite shares: a warm process that forks workers, the run in which nothing goes wrong, comparisons."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.launch.submit import submit
from core.recipe import make_recipe
from core.runs.find import list_runs
from core.runs.manifest import newest_valid
from core.runs.resume import resume
from core.runs.store import OPEN, Run
from core.runs.supervisor import Supervisor
from core.runs.tail import Tail
from core.system.process import is_alive, process_started
from core.workspace import ROOT, Workspace

STEPS = 12
# The starter, dropout on, and an evaluation, a sample prompt and the best adapter on the way.
RECIPE = {
    "model": "starter",
    "data.path": "pirate",
    "data.max_length": 64,
    "data.eval_max_rows": 4,
    "lora.rank": 4,
    "lora.dropout": 0.2,
    "train.effective_batch": 2,
    "train.max_steps": STEPS,
    "train.learning_rate": 0.002,
    "evaluation.times": 3,
    "evaluation.prompts": ["hello"],
    "evaluation.max_new_tokens": 2,
    "checkpoint.every_steps": 4,
}
SEED = int(os.environ.get("NIBBLE_SEED", "1"))


class Warm:
    """Forks workers from a process that has imported all they need."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.warm"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._ready = False

    def fork(self, run: Run, fault: str = "", **arguments: Any) -> int:
        """A worker of `run` that brings `fault` of tests/faults/inject.py upon itself. Returns its pid."""
        assert self._process.stdin is not None and self._process.stdout is not None
        if not self._ready:
            assert self._process.stdout.readline() == "ready\n"
            self._ready = True
        asked = {"folder": str(run.dir), "fault": fault, "arguments": arguments}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(json.loads(self._process.stdout.readline())["pid"])

    def close(self) -> None:
        """End it; workers that were forked go on."""
        self._process.kill()
        self._process.wait()


class WarmSupervisor(Supervisor):
    """A supervisor whose workers are forks of `warm`, the first of them with a fault."""

    def __init__(self, workspace: Workspace, warm: Warm, fault: str = "", **arguments: Any) -> None:
        super().__init__(workspace)
        self.warm, self.fault, self.arguments = warm, fault, arguments

    def _start(self, run: Run) -> None:
        pid = self.warm.fork(run, self.fault, **self.arguments)
        self.fault, self.arguments = "", {}
        now = time.time()
        run.write_status(state="preparing", pid=pid, pid_started=process_started(pid), started=now, heartbeat=now)


class Place:
    """A workspace, and what is done in it."""

    def __init__(self, path: Path, warm: Warm) -> None:
        self.workspace, self.warm = Workspace.open(path), warm

    def start(self, fault: str = "", settings: dict[str, Any] | None = None, **arguments: Any) -> Run:
        """Begin the run, with a fault."""
        supervisor = WarmSupervisor(self.workspace, self.warm, fault, **arguments)
        return submit(make_recipe({**RECIPE, **(settings or {})}), self.workspace, supervisor)

    def resume(self, run: Run, overrides: list[str] | None = None, fault: str = "", **arguments: Any) -> Run:
        """Go on with it."""
        supervisor = WarmSupervisor(self.workspace, self.warm, fault, **arguments)
        resume(run, supervisor, overrides)
        wait_until("it starts", lambda: run.status().state != "queued" or supervisor.advance())
        return run

    def finish(self, run: Run) -> None:
        """Go on with it to its end, without a fault."""
        self.resume(run)
        assert ended(run) == "finished", (run.status(), run.log_tail())


def ended(run: Run, seconds: float = 120) -> str:
    """Wait for the end of `run`; returns the state that it ended in."""
    try:
        wait_until("the run ends", lambda: run.status().state not in OPEN, seconds)
    except AssertionError as late:
        raise AssertionError(f"{late} {run.status()} {run.log_tail()} {lines(run, 'events.jsonl')[-2:]}") from None
    return run.status().state


def wait_until(what: str, holds: Callable[[], object], seconds: float = 120) -> None:
    """Wait until `holds()`; `what` says in the failure what did not come."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.01)


def gone(run: Run, seconds: float = 600) -> None:
    """Wait until the worker of `run` is no more."""
    status = run.status()
    wait_until("the worker is gone", lambda: not is_alive(status.pid, status.pid_started), seconds)


def kill(run: Run) -> None:
    """Kill the worker of `run` with -9, if it is still there."""
    pid = run.status().pid
    assert pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    gone(run)


def at_step(run: Run, step: int) -> None:
    """Wait until `run` has written the line of `step`."""
    metrics = run.dir / "metrics.jsonl"
    wait_until(f"step {step}", lambda: metrics.exists() and f'{{"step": {step}, ' in metrics.read_text("utf-8"))


def lines(run: Run, file: str) -> list[dict[str, Any]]:
    """What a .jsonl file of `run` says."""
    return Tail(run.dir / file).read()


def said(run: Run, kind: str) -> list[str]:
    """The events of a kind."""
    return [each["message"] for each in lines(run, "events.jsonl") if each["kind"] == kind]


def losses(run: Run) -> list[tuple[Any, ...]]:
    """Every line of the metrics, without what time has a part in."""
    rows = lines(run, "metrics.jsonl")
    return [(row["step"], row.get("loss"), row.get("lr"), row.get("grad_norm"), row.get("eval_loss")) for row in rows]


def weights(folder: Path) -> bytes:
    """An adapter's weights, bit for bit."""
    return (folder / "adapter_model.safetensors").read_bytes()


def is_the_same(run: Run, other: Run) -> None:
    """The final weights, the best ones, every loss and every answer."""
    assert weights(run.adapter) == weights(other.adapter)
    assert weights(run.dir / "best") == weights(other.dir / "best")
    assert losses(run) == losses(other)
    assert lines(run, "samples.jsonl") == lines(other, "samples.jsonl")
    assert run.result()["best"] == other.result()["best"]


def last_checkpoint(run: Run) -> int | None:
    """The step of the newest whole checkpoint; nothing newer may look like one and not be whole."""
    newest, passed_over = newest_valid(run.dir / "checkpoints")
    assert passed_over == [], run.id
    return int(newest.name) if newest is not None else None


def copy(run: Run, name: str) -> Run:
    """A copy of a run beside it."""
    return Run(Path(shutil.copytree(run.dir, run.dir.with_name(name))))


@pytest.fixture(scope="session", autouse=True)
def alike() -> Iterator[None]:
    """Every worker computes on the CPU with one thread: then the same numbers are the same bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="session")
def warm(alike: None) -> Iterator[Warm]:
    """One for all tests."""
    process = Warm()
    yield process
    process.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Iterator[Place]:
    """A workspace for a file's tests."""
    found = Place(tmp_path_factory.mktemp("workspace"), warm)
    yield found
    for run in list_runs(found.workspace):
        end(run)


def end(run: Run) -> None:
    """See to it that no worker of `run` is left."""
    status = run.status()
    if status.active and status.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(status.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Run:
    """The run in which nothing goes wrong."""
    run = Place(tmp_path_factory.mktemp("undisturbed"), warm).start()
    assert ended(run) == "finished", (run.status(), run.log_tail())
    return run
