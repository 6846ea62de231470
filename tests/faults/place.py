"""A workspace in which runs are started, by a warm process that forks their workers, and go wrong."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from core.launch.submit import submit
from core.recipe import make_recipe
from core.runs.resume import resume
from core.runs.store import Run
from core.runs.supervisor import Supervisor
from core.system.process import is_alive, process_started
from core.workspace import ROOT, Workspace
from tests.waiting import ended, wait_until

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

    def start_worker(self, run: Run) -> None:
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


def copy(run: Run, name: str) -> Run:
    """A copy of a run beside it."""
    return Run(Path(shutil.copytree(run.dir, run.dir.with_name(name))))


def end(run: Run) -> None:
    """See to it that no worker of `run` is left."""
    status = run.status()
    if status.active and status.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(status.pid, signal.SIGKILL)


def crashes(place: Place, run: Run) -> list[tuple[str, Run]]:
    """What each of the crashes of `run` has left behind, with the call that it came at."""
    gone(run)
    calls = [json.loads(line) for line in (run.dir.parent / f"calls-{run.id}").read_text("utf-8").splitlines()]
    return [(f"{kind} {path}", Run(run.dir.with_name(f"{run.id}.{number}"))) for number, kind, path in calls]


def _left(run: Run) -> str:
    """What a crash left of what counts, in one number: what is only beside its place is not looked at by anyone."""
    files = [file for file in sorted(run.dir.rglob("*")) if file.is_file() and file.name != "worker.log"]
    shown = [file for file in files if not any(part.startswith(".") for part in file.relative_to(run.dir).parts)]
    digests = [f"{file.relative_to(run.dir)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in shown]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def distinct(runs: list[tuple[str, Run]]) -> list[Run]:
    """One for each thing that is left behind."""
    return list({_left(run): run for _, run in runs}.values())
