"""Where the blocks of layers lie while they do not compute, and what brings one to the device."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch

from core.errors import ModelError
from core.model.stream.layers import Block

# A torch.cuda.Event; None on a CPU, where what was asked for before is done.
Event = Any


class UnreadableBlock(ModelError):
    """A block that its source does not give: the disk fails, or the file was cut short."""


class Ticket(Protocol):
    """A block on its way."""

    def wait(self) -> None:
        """Have what is computed from now on find the block there. Raises UnreadableBlock."""


class Source(Protocol):
    """Blocks by the number of their layer."""

    kind: Literal["ram", "disk"]

    def keep(self, number: int, block: Block, tensors: Sequence[torch.Tensor]) -> None:
        """Have the block of a layer, which is made of `tensors`. A source that has it already does nothing."""

    def forget(self, number: int) -> None:
        """The layer's weights lie on the device again: its block may go."""

    def bring(self, number: int, into: torch.Tensor, after: Event) -> Ticket:
        """Start to copy a block to `into` (bytes,), once what comes before `after` has been computed."""

    def close(self) -> None:
        """Let go of everything."""


class Done:
    """A block that is there."""

    def wait(self) -> None:
        """Nothing to wait for."""


class OnStream:
    """A block that a stream of the card is copying."""

    def __init__(self, copied: Event) -> None:
        self.copied = copied

    def wait(self) -> None:
        """The stream that computes waits; the program does not."""
        torch.cuda.current_stream().wait_event(self.copied)


def now(device: torch.device, timed: bool = False) -> Event:
    """An event behind all that the device was asked to compute until now; `timed` ones tell how far apart they are."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event(enable_timing=timed)
    event.record()
    return event


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor's memory (bytes,)."""
    return tensor.reshape(-1).view(torch.uint8)
