"""Blocks in a file, read by a thread of its own: straight into a slot on a CPU, by way of pinned memory to a GPU."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import accumulate, cycle
from typing import IO, Literal

import torch

from core.model.stream.layers import Block, Layer
from core.model.stream.source import Event, Ticket, UnreadableBlock, as_bytes

# What a GPU copies from while the next part is read.
STAGING_BYTES = 16 << 20
STAGINGS = 4


class FromFile:
    """Blocks of a file that has them all; `cut` makes one that is written as layers are streamed for the first time."""

    kind: Literal["ram", "disk"] = "disk"

    def __init__(self, file: IO[bytes], places: Mapping[int, int], device: torch.device) -> None:
        """`file` is not buffered; `places`: where each layer's block begins, in bytes."""
        self._file, self._places, self._written = file, places, set(places)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="streamed layers")
        self._card = _Staging() if device.type == "cuda" else None

    @classmethod
    def cut(cls, file: IO[bytes], layers: Sequence[Layer], device: torch.device) -> "FromFile":
        """An empty file, not buffered, that takes the blocks of these layers."""
        sizes = [layer.block.bytes for layer in layers]
        made = cls(file, dict(enumerate(accumulate(sizes, initial=0))), device)
        made._written.clear()
        return made

    def keep(self, number: int, block: Block, tensors: Sequence[torch.Tensor]) -> None:
        """Write a block that is not there yet. Raises OSError where the disk has no room."""
        if number in self._written:
            return
        for piece, tensor in zip(block.pieces, tensors, strict=True):
            self._file.seek(self._places[number] + piece.at)
            _write(self._file, memoryview(as_bytes(tensor).cpu().numpy()))
        self._file.truncate(max(self._file.seek(0, 2), self._places[number] + block.bytes))
        self._written.add(number)

    def forget(self, number: int) -> None:
        """Nothing: the file stays as it is until the end."""

    def bring(self, number: int, into: torch.Tensor, after: Event) -> Ticket:
        """Have the thread read a block."""
        if self._card is None:
            return _Read(self._reader.submit(self._read, self._places[number], memoryview(into.numpy())))
        return _Read(self._reader.submit(self._stage, self._card, number, into, after))

    def close(self) -> None:
        """Close the file."""
        self._reader.shutdown()
        with suppress(OSError):  # of a disk that fails; nobody needs the file any more
            self._file.close()

    def _read(self, at: int, target: memoryview) -> None:
        try:
            self._file.seek(at)
            while target and (count := self._file.readinto(target)):  # type: ignore[attr-defined]
                target = target[count:]
        except OSError as error:
            raise UnreadableBlock(f"The file with the streamed layers cannot be read: {error.strerror}.") from error
        if target:
            raise UnreadableBlock(
                f"The file with the streamed layers was cut short: {len(target):,} bytes are missing."
            )

    def _stage(self, card: "_Staging", number: int, into: torch.Tensor, after: Event) -> Event:
        """Read a block part by part, and have the card copy each while the next is read. Returns the last's event."""
        card.stream.wait_event(after)
        with torch.cuda.stream(card.stream):
            for start in range(0, into.numel(), STAGING_BYTES):
                part = into[start : start + STAGING_BYTES]
                staging = card.next()[: part.numel()]
                self._read(self._places[number] + start, memoryview(staging.numpy()))
                copied = card.copy(staging, part)
        return copied


class _Staging:
    """Pinned memory by way of which parts of a file come to the card, used in turn."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()
        self._buffers = [torch.empty(STAGING_BYTES, dtype=torch.uint8, pin_memory=True) for _ in range(STAGINGS)]
        self._copied: list[Event] = [torch.cuda.Event() for _ in range(STAGINGS)]
        self._turns = cycle(range(STAGINGS))
        self._turn = 0

    def next(self) -> torch.Tensor:
        """The buffer whose turn it is, when the card has copied what was in it."""
        self._turn = next(self._turns)
        self._copied[self._turn].synchronize()
        return self._buffers[self._turn]

    def copy(self, staging: torch.Tensor, part: torch.Tensor) -> Event:
        """Copy the buffer to the card, on its stream. Returns the event behind that."""
        part.copy_(staging, non_blocking=True)
        self._copied[self._turn] = self.stream.record_event()
        return self._copied[self._turn]


class _Read:
    """A block that is being read."""

    def __init__(self, reading: Future[Event]) -> None:
        self._reading = reading

    def wait(self) -> None:
        """Wait until it is read; for a copy to the card the stream that computes waits. Raises UnreadableBlock."""
        copied = self._reading.result()
        if copied is not None:
            torch.cuda.current_stream().wait_event(copied)


def _write(file: IO[bytes], data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]
