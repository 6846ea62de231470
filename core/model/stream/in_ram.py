"""Blocks in ordinary memory, pinned where a GPU copies from them while it computes."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from core.model.pinned import pinning_failed
from core.model.stream.layers import Block
from core.model.stream.source import Done, Event, OnStream, Ticket, as_bytes

# torch rounds pinned memory up to powers of two (2.13, CachingHostAllocator.h), which could take twice what is asked
# for. In chunks that are powers of two a block wastes less than the smallest of them.
SMALLEST_CHUNK = 1 << 16
NOT_PINNED = (
    "The system pins no more memory (WSL2 allows about 1 GiB), so some of the streamed layers lie in ordinary memory "
    "that is not pinned, and take longer to come. The result stays the same."
)


class InRam:
    """Blocks cut from a loaded model. Where memory cannot be pinned, what follows is not; `report` is told, once."""

    kind: Literal["ram", "disk"] = "ram"

    def __init__(self, device: torch.device, report: Callable[[str], object]) -> None:
        self._stream = torch.cuda.Stream() if device.type == "cuda" else None
        self._pins, self._report = device.type == "cuda", report
        self._kept: dict[int, list[torch.Tensor]] = {}

    def keep(self, number: int, block: Block, tensors: Sequence[torch.Tensor]) -> None:
        """Copy the tensors of a layer here."""
        if number in self._kept:
            return
        chunks = [self._chunk(size) for size in chunk_sizes(block.bytes)]
        for piece, tensor in zip(block.pieces, tensors, strict=True):
            _write(chunks, piece.at, as_bytes(tensor))
        self._kept[number] = chunks

    def forget(self, number: int) -> None:
        """Free a block."""
        self._kept.pop(number, None)

    def bring(self, number: int, into: torch.Tensor, after: Event) -> Ticket:
        """Copy a block on a stream of its own, so that the card computes meanwhile."""
        if self._stream is None:
            self._copy(number, into)
            return Done()
        self._stream.wait_event(after)
        with torch.cuda.stream(self._stream):
            self._copy(number, into)
        return OnStream(self._stream.record_event())

    def close(self) -> None:
        """Free all blocks."""
        self._kept.clear()

    def _copy(self, number: int, into: torch.Tensor) -> None:
        at = 0
        for chunk in self._kept[number]:
            target = into[at : at + chunk.numel()]
            target.copy_(chunk[: target.numel()], non_blocking=True)
            at += chunk.numel()

    def _chunk(self, size: int) -> torch.Tensor:
        if self._pins:
            try:
                return torch.empty(size, dtype=torch.uint8, pin_memory=True)
            except RuntimeError as error:
                if not pinning_failed(error):
                    raise
            self._pins = False
            self._report(NOT_PINNED)
        return torch.empty(size, dtype=torch.uint8)


def chunk_sizes(size: int) -> list[int]:
    """Powers of two that make up `size` bytes, rounded up to a multiple of the smallest chunk; the largest first."""
    whole = -(-size // SMALLEST_CHUNK) * SMALLEST_CHUNK
    return [1 << bit for bit in reversed(range(whole.bit_length())) if whole >> bit & 1]


def _write(chunks: list[torch.Tensor], at: int, data: torch.Tensor) -> None:
    """Copy `data` (bytes,) to where it begins at `at` of the chunks together."""
    start = 0
    for chunk in chunks:
        end = start + chunk.numel()
        low, high = max(at, start), min(at + data.numel(), end)
        if low < high:
            chunk[low - start : high - start].copy_(data[low - at : high - at])
        start = end
