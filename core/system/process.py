"""How our processes are started, and how one is identified: by its PID and start time."""

import contextlib
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from core.workspace import ROOT


def child_environment() -> dict[str, str]:
    """The environment of our processes. Telemetry is off: Hugging Face learns nothing of what we do.

    No variable can make libraries fetch code from a hub, or run a model's own code unasked.

    OpenMP's threads soon sleep when they wait: with their default spinning, two processes on two cores slowed each
    other down several times (docs/tried.md), and the user's machine is never ours alone.

    torch's CUDA allocator uses expandable segments: micro-batches differ in width, and blocks of fixed sizes that fit
    none of the next ones would add up to more than was planned (torch's notes on CUDA, "Memory management").
    """
    ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "TOKENIZERS_PARALLELISM": "true"}
    ours |= {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "USE_HUB_KERNELS": "NO"}
    usual = {"GOMP_SPINCOUNT": "20000"}
    in_wsl = "microsoft" in platform.release().lower()  # where torch's expandable segments are not reliable
    if sys.platform == "linux" and "PYTORCH_ALLOC_CONF" not in os.environ and not in_wsl:
        usual["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    given = {name: value for name, value in os.environ.items() if "TRUST_REMOTE_CODE" not in name}
    return {**usual, **given, **ours}


def as_process(module: str, *arguments: str) -> dict[str, Any]:
    """Arguments for subprocess that run our `module` as `python -m` does."""
    return {"args": [sys.executable, "-m", module, *arguments], "cwd": ROOT, "env": child_environment()}


def apart() -> dict[str, Any]:
    """Arguments for subprocess: the child outlives this process and its terminal, and gets no Ctrl+C.

    On Windows it has a hidden console: without one, Python's launcher would open a window, and closing that would
    end the process.
    """
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def process_started(pid: int) -> float:
    """When the process `pid` started, in seconds; on Linux since boot. Raises psutil.NoSuchProcess."""
    # psutil's value changes on Linux when the clock is set.
    if sys.platform != "linux":
        return float(psutil.Process(pid).create_time())
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    # Field 22, counted behind the name, which may itself hold spaces and brackets (proc_pid_stat(5)).
    return int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def is_alive(pid: int | None, started: float | None) -> bool:
    """Whether the process `pid` is running and started at `started`: a PID may be reused."""
    if pid is None or started is None:
        return False
    try:
        same = abs(process_started(pid) - started) < 0.05
        return same and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def end_tree(pid: int, started: float, patience_seconds: float = 5.0) -> bool:
    """Kill the process `pid` that started at `started`, and all its descendants.

    Returns whether all are gone. Where the PID belongs to another process by now, nothing is touched.
    """
    if not is_alive(pid, started):
        return True
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return True
    if not is_alive(pid, started):  # it ended while we looked: whose children these are is not known
        return True
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # psutil looks that the number is still the same process'
            member.kill()
    deadline = time.monotonic() + patience_seconds
    while any(_lives(member) for member in family):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
