"""Faults that a worker brings upon itself: each is called before it begins, with the folder of its run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch

from core.runs import heartbeat
from core.train import ending, loop, memory_sampler, saving
from core.train.watcher import Watcher
from tests.faults.files import Files, full_from, kill_at


def at_step(step: int, do: Callable[[], object], before: str = "write_step") -> None:
    """Do something once when the worker is about to write the line of `step`."""
    real, done = getattr(Watcher, before), []

    def watched(self: Watcher, at: int, *more: Any) -> Any:
        if at >= step and not done:
            done.append(at)
            do()
        return real(self, at, *more)

    setattr(Watcher, before, watched)


def killed_at_step(folder: Path, step: int) -> None:
    """Killed with -9 when the line of `step` is about to be written."""
    at_step(step, lambda: os.kill(os.getpid(), signal.SIGKILL))


def slowly(folder: Path, seconds: float) -> None:
    """Every step takes so much longer."""
    write = Watcher.write_step

    def slow(self: Watcher, *given: Any) -> None:
        time.sleep(seconds)
        write(self, *given)

    Watcher.write_step = slow  # type: ignore[method-assign]


# Where calls are counted from, and to: the worker's own functions.
WINDOWS: dict[str, tuple[Any, str]] = {
    "checkpoint": (saving, "save_checkpoint"),
    "adapter": (ending, "save_adapter"),
    "cutting back": (loop, "find_resume_point"),
    "the rest of the run": (Watcher, "write_step"),
}


def every_call(folder: Path, window: str, at: int, how: str, numbers: list[int] | None = None, **what: Any) -> None:
    """At call number `at` of the window's function, be forked once for each call for files that follows.

    Or only for those with the `numbers`, where there are so many. `what` counts is as `Files` has it.

    The fork number n is killed at its nth call (`how` is 'kill'), or finds the disk full from there on ('full'). What
    it leaves behind is kept beside the run, as `<run>.<n>`, and the next one finds the run as the one before did. The
    calls that count are those of the function, or for 'the rest of the run' all to its end.
    """
    memory_sampler.INTERVAL_SECONDS = heartbeat.BEAT_SECONDS = 1e6  # no thread of this process is to write meanwhile
    owner, name = WINDOWS[window]
    real, seen = getattr(owner, name), []

    def watched(*given: Any, **named: Any) -> Any:
        seen.append(0)
        if len(seen) != at:
            return real(*given, **named)
        _fork_for_each(folder, how, numbers, what)
        found = real(*given, **named)
        if window != "the rest of the run" and how == "kill":
            os._exit(0)
        return found

    setattr(owner, name, watched)


def _fork_for_each(folder: Path, how: str, numbers: list[int] | None, what: dict[str, Any]) -> None:
    """Returns in the forks, armed; the process itself ends here, after the first that has met nothing."""
    before = folder.with_name(f".before-{folder.name}")
    shutil.copytree(folder, before)
    for number in numbers or count():
        met = folder.parent / f".met-{folder.name}"
        pid = os.fork()
        if pid == 0:
            _arm(folder, how, number, met, what)
            return
        os.waitpid(pid, 0)
        if not met.exists():
            break
        met.unlink()
        folder.rename(folder.with_name(f"{folder.name}.{number}"))
        shutil.copytree(before, folder)
    os._exit(0)


def _arm(folder: Path, how: str, number: int, met: Path, what: dict[str, Any]) -> None:
    act = kill_at(number) if how == "kill" else full_from(number)

    def told(call: Any) -> None:
        if call.number == number:
            os.close(os.open(os.fsencode(met), os.O_CREAT | os.O_WRONLY))
            with (folder.parent / f"calls-{folder.name}").open("a") as calls:
                calls.write(json.dumps([number, call.kind, os.path.relpath(call.path, folder)]) + "\n")
        act(call)

    Files(folder, told, **what).begin()


def full_disk(folder: Path, place: str, step: int, until: int | None = None) -> None:
    """From `step` on there is no room for what has `place` in its path; `until` a step at which there is again."""
    state = {"full": False}

    def act(call: Any) -> None:
        if state["full"]:
            full_from(0, place)(call)

    def fill() -> None:
        state["full"] = True
        Files(folder, act).begin()

    at_step(step, fill)
    if until is not None:
        at_step(until, lambda: state.update(full=False))


def clock_set(folder: Path, step: int, seconds: float) -> None:
    """From `step` on the clock on the wall is off by so much."""
    real = time.time
    at_step(step, lambda: setattr(time, "time", lambda: real() + seconds))


def clock_and_slow(folder: Path, step: int, seconds: float, each: float) -> None:
    """The clock is set, and every step takes longer."""
    slowly(folder, each)
    clock_set(folder, step, seconds)


def no_number(folder: Path, step: int) -> None:
    """From `step` on no loss is a number."""
    compute = loop.NibbleTrainer.summed_loss

    def lost(self: Any, inputs: Any) -> torch.Tensor:
        now = self.model.training and self.state.global_step >= step - 1
        return compute(self, inputs) * (torch.nan if now else 1.0)

    loop.NibbleTrainer.summed_loss = lost  # type: ignore[method-assign]


def no_memory(folder: Path, step: int) -> None:
    """From `step` on every pass asks for 64 GiB."""
    compute = loop.NibbleTrainer.summed_loss

    def greedy(self: Any, inputs: Any) -> torch.Tensor:
        if self.model.training and self.state.global_step >= step - 1:
            torch.ones(2**34)
        return compute(self, inputs)

    loop.NibbleTrainer.summed_loss = greedy  # type: ignore[method-assign]
