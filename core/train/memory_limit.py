"""Holds the worker to its memory budget, so that exceeding it is an error that can be caught and reported."""

import contextlib
import sys
from collections.abc import Iterator

import psutil
import torch

from core.memory.measured_overhead import constants_of
from core.system.hardware import Device

if sys.platform == "linux":
    import resource


# If the limit rises by less than this, another try is not worth it.
WORTH_A_TRY = 4 * 2**20
_budget_bytes: int | None = None
# The share of the GPU's memory that torch may take; None where there is no such limit.
_share: float | None = None


def enforce(budget_bytes: int, device: Device, managed_bytes: int) -> str:
    """Enforce the limit. Returns, as a phrase for a person, how it is enforced or why it cannot be.

    On a GPU the caching allocator is capped at the budget less what it does not count: the CUDA context, and
    `managed_bytes` of the paged optimizer's states. On Linux' CPU the data segment may grow by what the budget leaves
    over the present resident memory; beyond that torch raises, and survives (measured).
    """
    global _budget_bytes, _share
    if device.kind == "cuda":
        total = torch.cuda.mem_get_info(0)[1]
        context = constants_of(device, torch.cuda.get_device_capability(0)).context_bytes  # as the plan counts it
        _share = max(0.01, min(1.0, (budget_bytes - context - managed_bytes) / total))
        torch.cuda.set_per_process_memory_fraction(_share, 0)
        return "enforced by torch's allocator"
    _share = None
    if sys.platform != "linux":
        return "not enforced: this system has no memory limit per process"
    _budget_bytes = budget_bytes
    renewed()
    return "enforced by the system for this process"


def renewed() -> bool:
    """Raise the system's limit by what was allocated since and never touched, such as threads' stacks.

    The budget is about resident memory, the limit about allocations. Returns whether the limit rose so far that what
    failed is worth another try.
    """
    if sys.platform != "linux" or _budget_bytes is None:
        return False
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _data_bytes() + max(0, _budget_bytes - psutil.Process().memory_info().rss)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return before != resource.RLIM_INFINITY and limit - before >= WORTH_A_TRY


def _data_bytes() -> int:
    """Size of this process' data segment, which RLIMIT_DATA limits, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 (no file of ours)
        line = next(line for line in status if line.startswith("VmData"))
    return int(line.split()[1]) * 1024


@contextlib.contextmanager
def lifted() -> Iterator[None]:
    """Lift the limits for a moment: saving what was learned must not fail for lack of a few megabytes."""
    with _gpu_limit_lifted(), _system_limit_lifted():
        yield


@contextlib.contextmanager
def _gpu_limit_lifted() -> Iterator[None]:
    if _share is None:
        yield
        return
    torch.cuda.set_per_process_memory_fraction(1.0, 0)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(_share, 0)


@contextlib.contextmanager
def _system_limit_lifted() -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
