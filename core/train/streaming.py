"""Has layers of a run's base streamed, as its strategy says: from memory to a GPU, else from a file in its folder."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import RunError
from core.memory.strategy import Strategy
from core.model.load import torch_device
from core.model.stream.from_file import FromFile
from core.model.stream.in_ram import InRam
from core.model.stream.layers import Layer
from core.model.stream.source import Source
from core.model.stream.stream import LayerStream, stream_layers, stream_of
from core.runs.store import Run
from core.sizes import show_size
from core.system.full_disk import free_some, is_disk_full
from core.system.hardware import Device


def stream_as_chosen(run: Run, model: Any, strategy: Strategy, device: Device) -> None:
    """Let the layers of `model` (PEFT's) that `strategy` streams lie elsewhere.

    Raises ModelError where they cannot, RunError where the disk does not take them.
    """
    if not strategy.streamed_layers:
        return

    def source_of(layers: Sequence[Layer]) -> Source:
        here = torch_device(device)
        if strategy.streamed_from == "ram":
            return InRam(here, lambda sentence: run.event("warning", sentence))
        return FromFile.cut(tempfile.TemporaryFile(dir=run.dir, buffering=0), layers, here)

    stream = stream_layers(model, source_of)
    try:
        stream.settle(strategy.streamed_layers)
    except OSError as error:
        what = free_some(run.dir) if is_disk_full(error) else "Leave train.streamed_layers empty to do without."
        raise RunError(f"The streamed layers cannot be written to {run.dir}: {error.strerror}. {what}") from error
    size = sum(stream.layers[number].block.bytes for number in stream.streamed)
    where = "CPU memory" if strategy.streamed_from == "ram" else "a file"
    run.event(
        "model", f"{len(stream.streamed)} of {len(stream.layers)} layers ({show_size(size)}) are streamed from {where}."
    )


@dataclass(frozen=True)
class Traffic:
    """What streaming has come to: bytes that were moved, and seconds in which computing waited for them."""

    bytes: int
    seconds_waiting: float

    @classmethod
    def of(cls, stream: LayerStream) -> "Traffic":
        """Until now."""
        return cls(stream.bytes_moved, stream.seconds_waiting)

    def since(self, before: "Traffic", seconds: float) -> dict[str, float]:
        """What came after `before`, in so many seconds, as a line of metrics.jsonl has it."""
        return {
            "streamed_bytes_per_second": round((self.bytes - before.bytes) / seconds),
            "stream_wait_share": round((self.seconds_waiting - before.seconds_waiting) / seconds, 4),
        }


def end_stream(model: Any) -> None:
    """Let go of what the layers of `model` are streamed from, where they are. They cannot compute any more."""
    stream = stream_of(model)
    if stream is not None:
        stream.close()
