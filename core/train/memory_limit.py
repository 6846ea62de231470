"""Holds the worker to its memory budget, so that going over it is an error that can be caught and told."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import psutil
import torch

from core.memory.measured_overhead import constants_of
from core.system.hardware import Device

if sys.platform == "linux":
    import resource


# A rise of the limit by less than this is not worth another try.
WORTH_A_TRY = 4 * 2**20
_budget_bytes: int | None = None


def enforce(budget_bytes: int, device: Device, managed_bytes: int) -> str:
    """Put the limit into force. Returns how, or why it cannot be, as a person reads it.

    On a GPU the caching allocator is capped at the budget less what it does not count: the CUDA context, and
    `managed_bytes` of the paged optimizer's states. On Linux' CPU the data segment may grow by what the budget leaves
    over the present resident memory; torch then raises (measured) and lives on.
    """
    global _budget_bytes
    if device.kind == "cuda":
        total = torch.cuda.mem_get_info(0)[1]  # of the slice, where the card is sliced: NVML tells the whole card's
        context = constants_of(device, torch.cuda.get_device_capability(0)).context_bytes  # as the plan counts it
        fraction = max(0.01, min(1.0, (budget_bytes - context - managed_bytes) / total))
        torch.cuda.set_per_process_memory_fraction(fraction, 0)
        return "enforced by torch's allocator"
    if sys.platform != "linux":
        return "not enforced: this system has no memory limit per process"
    _budget_bytes = budget_bytes
    renewed()
    return "enforced by the system for this process"


def renewed() -> bool:
    """Let the system's limit follow what has been asked for since and never touched, such as threads' stacks.

    The budget is about resident memory, and the limit about what was asked for. Returns whether the limit rose so far
    that what has failed is worth another try.
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
    """Without the limit for a moment: saving what was learned must not fail for want of a few megabytes."""
    if sys.platform == "linux":
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    else:
        yield
