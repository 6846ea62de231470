"""Tensors to safetensors files, one after another: a shard is never in memory as a whole.

The format: 8 bytes with the length of a JSON header, the header with dtype, shape and place of each tensor, then the
tensors' bytes, row by row, little end first (huggingface/safetensors, README, "Format").
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from core.export.shared.destination import ExportError

# The format's names of dtypes; parts that a text model leaves alone may be in any of them.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNMENT = 8


@dataclass(frozen=True)
class Planned:
    """A tensor that will be written."""

    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """What it takes in the file."""
        count = 1
        for size in self.shape:
            count *= size
        return count * self.dtype.itemsize


def into_shards(tensors: Iterable[Planned], most_bytes: int) -> list[list[Planned]]:
    """`tensors` in their order, dealt out to files of at most `most_bytes`; a larger tensor gets a file of its own.

    Within a file those of wide numbers come first, so that each begins where its numbers may.
    """
    shards: list[list[Planned]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.bytes > most_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.bytes
    return [sorted(shard, key=lambda tensor: -tensor.dtype.itemsize) for shard in shards]


def shard_name(index: int, count: int) -> str:
    """The name that transformers expects of shard `index`, counted from 0."""
    return "model.safetensors" if count == 1 else f"model-{index + 1:05d}-of-{count:05d}.safetensors"


def write_shard(path: Path, tensors: Sequence[Planned], value_of: Callable[[Planned], torch.Tensor]) -> str:
    """Write one file, asking `value_of` for one tensor at a time; returns its SHA-256. It is flushed to the disk."""
    header, begin = _header(tensors)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in (struct.pack("<Q", len(header)), header):
            file.write(part)
            digest.update(part)
        for tensor in tensors:
            value = value_of(tensor)
            fits = torch.finfo(tensor.dtype).max if tensor.dtype.is_floating_point else None
            if tensor.dtype == torch.float16 and fits is not None and value.abs().max() > fits:
                raise ExportError(
                    f"{tensor.key} contains numbers too large for float16 (above {fits:,.0f}). Choose bfloat16 instead."
                )
            data = memoryview(value.to(tensor.dtype).contiguous().reshape(-1).view(torch.uint8).numpy())
            if len(data) != tensor.bytes:
                raise ExportError(
                    f"{tensor.key} does not have the size stated in the base model's files. Download "
                    f"the base model again."
                )
            file.write(data)
            digest.update(data)
        file.flush()
        os.fsync(file.fileno())
    assert path.stat().st_size == 8 + len(header) + begin
    return digest.hexdigest()


def _header(tensors: Sequence[Planned]) -> tuple[bytes, int]:
    """The header, padded, and how many bytes follow it."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        end = at + tensor.bytes
        entries[tensor.key] = {"dtype": _NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % _ALIGNMENT), at
