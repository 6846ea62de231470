"""Who holds the device: one process at a time, by a lock that a dead holder cannot keep, and a file that names it.

The process that uses the device's memory holds the lock itself, for as long as it does. A run needs the device for
itself. Chat, arena and export need it for themselves on a GPU, whose memory is small; on a CPU they share it with a
run. Whoever holds it while a run waits is asked to give way (`Hold.wanted`).
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filelock import BaseFileLock

from core.errors import RunError
from core.runs.store import Run
from core.system.file_lock import try_lock
from core.system.hardware import Device, ReadingError, device, device_used_bytes
from core.system.process import is_alive, process_started
from core.untrusted.paths import is_run_id
from core.workspace import Workspace, read_json, write_json

Kind = Literal["run", "chat", "export"]
_NAMES = {"run": "the run", "chat": "the chat with", "export": "the export of"}
# Whoever looks who holds the lock has it for less than a moment: it is no reason to be refused.
MOMENT_SECONDS = 0.3


class DeviceHeld(RunError):
    """Another process holds the device; the message says which, and what to do."""


@dataclass(frozen=True)
class Holder:
    """Who holds the device. `since` in seconds since the epoch; `run` is the run's id where it is one.

    `card` had `used_before` bytes in use when it came: so what it takes is known where the driver hides it.
    """

    kind: str
    label: str
    pid: int | None = None
    pid_started: float | None = None
    since: float | None = None
    run: str | None = None
    card: int | None = None
    used_before: int | None = None

    def in_words(self) -> str:
        """For a sentence: 'the run “Pirate”', 'the chat with “SmolLM2”'."""
        return f"{_NAMES[self.kind]} “{self.label}”" if self.kind in _NAMES else "another process"


class Hold:
    """The device, held until `release` or the end of this process. Where it is shared, there is nothing to hold."""

    def __init__(self, workspace: Workspace, kind: Kind, lock: BaseFileLock | None) -> None:
        self.workspace, self.kind, self._lock = workspace, kind, lock

    def wanted(self) -> str | None:
        """The run that waits for this holder to give way, such as '“Pirate”', or None."""
        request = read_json(_wanted_file(self.workspace)) if self._lock is not None else None
        if not isinstance(request, dict):
            return None
        run = Run(self.workspace.runs / str(request.get("run")))
        return f"“{run.name}”" if is_run_id(run.id) and run.status().state == "queued" else None

    def release(self) -> None:
        """Let the next one have the device."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with contextlib.suppress(PermissionError):  # on Windows, while another reads it
                _line(self.workspace).unlink(missing_ok=True)
            lock.release()

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def hold(workspace: Workspace, kind: Kind, label: str, run: str | None = None) -> Hold:
    """Hold the device for `kind` and `label`; `run` is the run's ID where it is one.

    Where it is shared, on a CPU by all but runs, this always succeeds. Raises DeviceHeld, naming who holds it.
    """
    if shares(kind):
        return Hold(workspace, kind, None)
    lock = try_lock(workspace.state / "device.lock", MOMENT_SECONDS)
    if lock is None:
        raise DeviceHeld(_refusal(_read_line(workspace)))
    me = Holder(kind, label, os.getpid(), process_started(os.getpid()), time.time(), run, *_in_use())
    try:
        write_json(_line(workspace), asdict(me))
    except OSError:  # a full disk: the lock is what counts, and the line says only whose it is
        _line(workspace).unlink(missing_ok=True)
    return Hold(workspace, kind, lock)


def holder(workspace: Workspace) -> Holder | None:
    """Who holds the device now; None where it is free, whatever a dead holder has left behind."""
    lock = try_lock(workspace.state / "device.lock")
    if lock is not None:
        lock.release()
        return None
    line = _read_line(workspace)
    # Somebody else who looks has it for a moment too, and what the line then says is of one that is gone.
    return line if line.pid is None or is_alive(line.pid, line.pid_started) else None


def device_for_a_run(workspace: Workspace) -> Device:
    """The device, counting what its present holder uses as free: that ends or gives way before a run starts."""
    chosen, at_it = device(), holder(workspace)
    if at_it is None or at_it.pid is None:
        return chosen
    try:
        used = device_used_bytes(chosen, at_it.pid)
    except ReadingError:
        return chosen
    theirs = used.process or 0
    if used.process is None and at_it.card == chosen.index and at_it.used_before is not None:
        theirs = max(0, used.device - at_it.used_before)
    return replace(chosen, free_bytes=min(chosen.total_bytes, chosen.free_bytes + theirs))


def _in_use() -> tuple[int | None, int | None]:
    """The card that this process would take, and the bytes in use on it; None where that is not known."""
    chosen = device()
    if chosen.kind != "cuda":
        return None, None
    with contextlib.suppress(ReadingError):
        return chosen.index, device_used_bytes(chosen, os.getpid()).device
    return chosen.index, None


def shares(kind: Kind) -> bool:
    """Whether `kind` shares the device with a run: on a CPU all but runs do."""
    return kind != "run" and device().kind == "cpu"


def ask_to_give_way(workspace: Workspace, run: Run) -> None:
    """Tell the holder of the device that `run` waits for it. That lasts while `run` is queued."""
    wanted = _wanted_file(workspace)
    if (read_json(wanted) or {}).get("run") != run.id:
        write_json(wanted, {"run": run.id, "time": time.time()})


def _refusal(by: Holder) -> str:
    if by.kind == "run":
        return f"The device is in use: {by.in_words()} is training. Wait until it ends, or stop it."
    if by.kind in _NAMES:
        return f"The device is in use by {by.in_words()}. End that first."
    return "The device is in use by another Nibble process on this workspace. End that first."


def _read_line(workspace: Workspace) -> Holder:
    """What the holder has written about itself; without a name in the instant before."""
    values: Any = read_json(_line(workspace))
    try:
        return Holder(**values)
    except TypeError:
        return Holder("", "")


def _line(workspace: Workspace) -> Path:
    return workspace.state / "device.json"


def _wanted_file(workspace: Workspace) -> Path:
    return workspace.state / "device-wanted.json"
