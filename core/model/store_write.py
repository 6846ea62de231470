"""Makes a store: every weight of a base is written, block by block, as it is quantised, and none is kept."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from core.basemodel.store_index import PAGE, Block, Checksum, Index, Kind, Piece, StoreError, aligned, laid_out
from core.basemodel.stores import INDEX, WEIGHTS, StoreKey, making, write_manifest
from core.model.hf_seam import SinkFailed, Taken, into
from core.model.moe import is_fused
from core.model.store_parts import in_order, name_of, taken_apart
from core.text.library_errors import telling_line

CHUNK = 2**20


def make_store(
    load: Callable[[], Any], stores: Path, key: StoreKey, report: Callable[[str], None] = lambda said: None
) -> bool:
    """Make the store with that key; `load` calls `from_pretrained`. False: another process made it meanwhile.

    Raises StoreError where it cannot be made, and what `load` raises; then nothing of it is left.
    """
    with making(stores, key, report) as folder:
        if folder is None:
            return False
        with (folder / WEIGHTS).open("wb") as file:
            writer = StoreWriter(file)
            index = _written(load, writer, key)
            file.flush()
            os.fsync(file.fileno())
        with (folder / INDEX).open("w", encoding="utf-8") as text:
            text.write(json.dumps(index.to_json()))
            text.flush()
            os.fsync(text.fileno())
        write_manifest(folder, key, writer.sha256)
    return True


def _written(load: Callable[[], Any], writer: "StoreWriter", key: StoreKey) -> Index:
    """Have the base loaded into `writer`. Raises OSError, StoreError, and what `load` raises."""
    try:
        with into(writer.begin):
            load()
    except Taken as taken:
        return writer.end(taken.loading)
    except SinkFailed as failed:
        if isinstance(failed.error, (OSError, StoreError)):
            raise failed.error from None
        reason = telling_line(failed.error, kind=True)
        raise StoreError(f"No quantised copy of {key.label} can be kept ({reason}).") from failed.error
    raise StoreError(f"No quantised copy of {key.label} can be kept: nothing of it was loaded.")


class StoreWriter:
    """Writes blocks to a file. A block waits in memory until all of its parameters are there, at most one layer."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest, self._at = file, hashlib.sha256(), 0
        self._block_of: dict[str, tuple[str, Kind]] = {}
        self._expected: dict[str, set[str]] = defaultdict(set)
        self._waiting: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
        self._experts: set[str] = set()
        self._blocks: list[Block] = []
        self._parameters: dict[str, dict[str, Any]] = {}

    @property
    def sha256(self) -> str:
        """The hash of what was written."""
        return self._digest.hexdigest()

    def begin(self, model: PreTrainedModel) -> Callable[[str, torch.Tensor], None]:
        """Deal the names of `model` out to blocks. Returns the sink for its parameters."""
        self._block_of = blocks_of(model)
        for name, (block, _) in self._block_of.items():
            self._expected[block].add(name)
        self._experts = {
            name for name in self._block_of if is_fused(model.get_submodule(name.rpartition(".")[0]), _last(name))
        }
        return self.put

    def put(self, name: str, parameter: torch.Tensor) -> None:
        """Take one parameter; it is written with its block. Raises OSError."""
        block = self._block_of[name][0]
        self._waiting[block][name] = parameter
        if self._waiting[block].keys() >= self._expected[block]:
            self._write(block)

    def end(self, loading: dict[str, Any]) -> Index:
        """Write the blocks of which a part is in no file, such as a head that is tied to the embeddings."""
        for block in list(self._waiting):
            self._write(block)
        return Index(tuple(self._blocks), self._parameters, loading)

    def _write(self, block: str) -> None:
        held = self._waiting.pop(block)
        names = sorted(held, key=lambda name: (name in self._experts, list(held).index(name)))
        parts = []
        for name in names:
            self._parameters[name], tensors = taken_apart(held.pop(name))
            parts += [(name, part, tensor) for part, tensor in tensors.items()]
        self._append(block, parts)

    def _append(self, block: str, parts: list[tuple[str, str, torch.Tensor]]) -> None:
        starts, experts_at = self._starts(parts)
        begins, checksum, pieces = self._pad_to(aligned(self._at, PAGE)), Checksum(), []
        for start, (name, part, tensor) in zip(starts, parts, strict=True):
            flat, strides = in_order(tensor)
            self._pad_to(begins + start)
            pieces.append(Piece(name, part, start, name_of(tensor.dtype), tuple(tensor.shape), strides))
            for data in chunks(memoryview(flat.numpy())):
                checksum.add(data)
                self._add(data)
        kind = self._block_of[pieces[0].parameter][1]
        self._blocks.append(Block(block, kind, begins, self._at - begins, checksum.hex(), experts_at, tuple(pieces)))

    def _starts(self, parts: list[tuple[str, str, torch.Tensor]]) -> tuple[list[int], int | None]:
        """Where each piece begins in its block; and where the experts do, at a page of their own."""
        sizes = [tensor.numel() * tensor.element_size() for _, _, tensor in parts]
        first = next((place for place, each in enumerate(parts) if each[0] in self._experts), None)
        if first is None:
            return list(laid_out(sizes)), None
        starts = list(laid_out(sizes[:first]))
        experts_at = aligned(starts[-1] + sizes[first - 1], PAGE) if starts else 0
        return [*starts, *laid_out(sizes[first:], experts_at)], experts_at

    def _pad_to(self, at: int) -> int:
        self._add(memoryview(bytes(at - self._at)))
        return at

    def _add(self, data: memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._at += len(data)


def chunks(data: memoryview) -> Iterator[memoryview]:
    """Pieces of at most CHUNK bytes, so that they are counted while they are in the processor's cache."""
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]


def blocks_of(model: PreTrainedModel) -> dict[str, tuple[str, Kind]]:
    """The block of every parameter and persistent buffer of `model`, by name: the block's name and kind."""
    layers = [name for name, module in model.named_modules() if isinstance(module, GradientCheckpointingLayer)]
    outermost = {name for name in layers if not any(name.startswith(f"{other}.") for other in layers)}
    ends: dict[str, Kind] = {}
    for module, kind in ((model.get_output_embeddings(), "head"), (model.get_input_embeddings(), "embeddings")):
        ends |= {name: kind for name, each in model.named_modules() if each is module}
    dealt: dict[str, tuple[str, Kind]] = {}
    for name in model.state_dict():
        above = [name[:place] for place, letter in enumerate(name) if letter == "."]
        layer = next((each for each in above if each in outermost), None)
        end = next((each for each in above if each in ends), None)
        if layer is not None:
            dealt[name] = (layer, "layer")
        elif end is not None:
            dealt[name] = (end, ends[end])
        else:
            dealt[name] = ("rest", "rest")
    return dealt


def _last(name: str) -> str:
    return name.rpartition(".")[2]
