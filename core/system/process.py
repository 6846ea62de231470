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

from core.system.hardware import on_vgpu
from core.workspace import ROOT


def child_environment() -> dict[str, str]:
    """The environment of our processes. Telemetry is off: Hugging Face learns nothing of what we do.

    No variable can make libraries fetch code from a hub, or run a model's own code unasked.

    OpenMP's threads soon sleep when they wait: with their default spinning, two processes on two cores slowed each
    other down several times (docs/tried.md), and the user's machine is never ours alone.

    torch's CUDA allocator uses expandable segments: micro-batches differ in width, and blocks of fixed sizes that fit
    none of the next ones would add up to more than was planned (torch's notes on CUDA, "Memory management"). The
    variable has its old name, since torch 2.9 heeds no other for this (pytorch#183387).
    """
    ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "TOKENIZERS_PARALLELISM": "true"}
    ours |= {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "USE_HUB_KERNELS": "NO"}
    usual = {"GOMP_SPINCOUNT": "20000"}
    if "PYTORCH_ALLOC_CONF" not in os.environ and _segments_can_grow():
        usual["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    given = {name: value for name, value in os.environ.items() if "TRUST_REMOTE_CODE" not in name}
    return {**usual, **given, **ours}


def _segments_can_grow() -> bool:
    """Whether torch's CUDA allocator can use expandable segments here.

    torch is built without them for Windows (2.13, CUDAAllocatorConfig.h, `expandable_segments`). Under WSL the first
    allocation was seen to fail in `cuMemSetAccess` (pytorch#192330), on a vGPU in `cuMemAddressReserve`
    (Comfy-Org/comfy-aimdo#21).
    """
    return sys.platform == "linux" and not in_wsl() and not on_vgpu()


def segments_grow() -> bool:
    """Whether they are used by our processes: where they can be, unless the environment says otherwise."""
    given = os.environ.get("PYTORCH_CUDA_ALLOC_CONF", os.environ.get("PYTORCH_ALLOC_CONF"))
    asked = given is None or "expandable_segments:true" in given.lower().replace(" ", "")
    return asked and (sys.platform == "linux" if given is not None else _segments_can_grow())


def in_wsl() -> bool:
    """Whether this is Linux under Windows (WSL2), as its kernel says."""
    return "microsoft" in platform.release().lower()


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
