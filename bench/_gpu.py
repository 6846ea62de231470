"""Shared by the GPU benchmarks: whether there is a GPU, and a second process that fills the rest of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from core.memory.measured_overhead import constants_of
from core.system.hardware import claim_card, cuda_capability, device, device_used_bytes
from core.system.process import as_process

# On an idle card, the driver's own use varies by this much.
NEAR_BYTES = 64 * 2**20


def has_gpu(what: str) -> bool:
    """Whether there is an NVIDIA GPU. If not, say on standard error that `what` is skipped."""
    if device().kind == "cuda":
        return True
    print(f"No NVIDIA GPU here: {what} is skipped.", file=sys.stderr)
    return False


def measure_constants() -> None:
    """Measure what a process takes beside its tensors, as `doctor` does, unless that is known. Plans use the result."""
    card = device()
    if constants_of(card, cuda_capability(card.index)).measured:
        return
    subprocess.run(**as_process("core.memory.measured_overhead"), stdout=subprocess.DEVNULL, check=False)


@contextmanager
def only(free_bytes: int) -> Iterator[int]:
    """Leave no more than `free_bytes` of the card: another process holds the rest. Yields what is actually free."""
    holder = subprocess.Popen(
        **as_process("bench._gpu", str(free_bytes)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        assert holder.stdout is not None
        if not holder.stdout.readline():
            raise RuntimeError("The rest of the card could not be held.")
        yield device().free_bytes
    finally:
        holder.communicate()
        _wait_until_free(free_bytes)


def _wait_until_free(more_than: int) -> None:
    deadline = time.monotonic() + 20
    while device().free_bytes <= more_than + NEAR_BYTES and time.monotonic() < deadline:
        time.sleep(0.2)


def hold_all_but(free_bytes: int) -> None:
    """Take the card's memory until `free_bytes` are left, and hold it until standard input closes."""
    import torch

    torch.zeros(1, device="cuda")
    card = device()
    taken = []
    while (more := device().free_bytes - free_bytes) >= 2 * 2**20:
        taken.append(torch.empty(more // 2**21 * 2**21, dtype=torch.uint8, device="cuda"))
    print(device_used_bytes(card, 0).device, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    claim_card()
    hold_all_but(int(sys.argv[1]))
