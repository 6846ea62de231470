"""What safetensors files say of themselves: each tensor's name, shape and dtype, on the disk or on the Hub. No torch.

A file begins with 8 bytes of length and so much JSON; its weights follow. Of a file on the Hub only that is fetched.
"""

import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from core.basemodel.hub import HubFile, refusal, streamed
from core.errors import ModelError

_NOT_QUANTISED = re.compile(r"embed|wte|wpe|lm_head|embed_out")
_MOST_BYTES = 50_000_000
_PREFIX = 8
# Of nearly all files the whole header (huggingface_hub's own count over the Hub's best known models: 97 in 100).
_FIRST_BYTES = 100_000
_AT_ONCE = 8
_BLOCK = 2**16


@dataclass(frozen=True)
class TensorShape:
    """One tensor of a model's files, as the safetensors header gives it; `dtype` by its name there ('BF16')."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "F32"

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def quantised(self) -> bool:
        """Whether loading in 4 bits quantises it: matrices of linear layers, not embeddings nor the head."""
        return len(self.shape) == 2 and not _NOT_QUANTISED.search(self.name)


def read_header(file: Path) -> list[TensorShape]:
    """The tensors in a safetensors file. Raises ModelError where it is cut short or damaged."""
    try:
        with file.open("rb") as handle:
            header = handle.read(_length(handle.read(_PREFIX)))
        return _tensors(header, file.stat().st_size)
    except _Damaged as damage:
        raise ModelError(f"{file.parent.name}/{file.name} cannot be read: {damage}. Download it again.") from None


@lru_cache(maxsize=16)
def fetch_headers(model_id: str, commit: str, files: tuple[HubFile, ...]) -> tuple[TensorShape, ...]:
    """The tensors of those of `files` that hold weights, from the Hub, without the weights. Raises ModelError.

    What was fetched once is kept: a commit does not change.
    """
    weights = [file for file in files if file.name.endswith(".safetensors")]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = threads.map(partial(_fetch, model_id, commit), weights)
        return tuple(tensor for tensors in found for tensor in tensors)


def _fetch(model_id: str, commit: str, file: HubFile) -> list[TensorShape]:
    from huggingface_hub.errors import HTTPError

    try:
        start = _bytes(model_id, commit, file.name, min(_FIRST_BYTES, file.bytes))
        needed = _PREFIX + _length(start[:_PREFIX])
        if needed > len(start):
            start = _bytes(model_id, commit, file.name, min(needed, file.bytes))
        return _tensors(start[_PREFIX:needed], file.bytes)
    except (HTTPError, OSError) as error:
        raise refusal(error, model_id) from None
    except _Damaged as damage:
        raise ModelError(f"{file.name} of {model_id} cannot be used: {damage}. Choose another copy of it.") from None


def _bytes(model_id: str, commit: str, name: str, count: int) -> bytes:
    """The first `count` bytes of a file on the Hub, and no more: also of a server that sends all of it."""
    found = bytearray()
    with streamed(model_id, name, commit, f"bytes=0-{count - 1}") as response:
        for block in response.iter_bytes(_BLOCK):
            found += block
            if len(found) >= count:
                break
    if len(found) < count:
        raise ConnectionError("the download ended early")
    return bytes(found[:count])


class _Damaged(ValueError):
    """A header that is none; says why, as a part of a sentence."""


def _length(prefix: bytes) -> int:
    length = int.from_bytes(prefix, "little")
    if len(prefix) < _PREFIX or length > _MOST_BYTES:
        raise _Damaged("it is damaged")
    return length


def _tensors(header: bytes, file_bytes: int) -> list[TensorShape]:
    """The tensors that `header` names, in a file of `file_bytes`."""
    try:
        entries = json.loads(header)
        named = {name: entry for name, entry in entries.items() if name[:2] != "__"}
        tensors = [TensorShape(name, _shape(entry["shape"]), str(entry["dtype"])) for name, entry in named.items()]
        end = max((int(entry["data_offsets"][1]) for entry in named.values()), default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _Damaged("it is damaged") from None
    if file_bytes < _PREFIX + len(header) + end:
        raise _Damaged("it is cut short")
    return tensors


def _shape(sizes: Any) -> tuple[int, ...]:
    if not all(isinstance(size, int) and 0 <= size < 2**40 for size in sizes):
        raise ValueError("no shape")
    return tuple(sizes)
