"""The index of a store: which bytes of its one file of weights are which part of which parameter. Imports no torch.

The file holds a block for each layer, one for the embeddings, one for the head and one for the rest. Blocks begin at
multiples of PAGE, so that they can be read past the system's page cache; their pieces begin at multiples of ALIGNMENT,
as torch aligns memory on a card.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from core.errors import ModelError

PAGE, ALIGNMENT = 4096, 512
# Bytes of a number of each dtype, by torch's names without their prefix.
SIZES = {"bool": 1, "uint8": 1, "int8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1, "int16": 2, "float16": 2}
SIZES |= {"bfloat16": 2, "int32": 4, "float32": 4, "int64": 8, "float64": 8}
Kind = Literal["layer", "embeddings", "head", "rest"]


class StoreError(ModelError):
    """A store that cannot be made or read; the base is then loaded from its own files."""


@dataclass(frozen=True)
class Piece:
    """One tensor of a parameter: its packed numbers, their constants, or all of a parameter that is not packed.

    `at` counts in bytes from where its block begins. `strides`, in numbers, are there where its numbers do not lie in
    the order of its dimensions.
    """

    parameter: str
    part: str
    at: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None

    @property
    def bytes(self) -> int:
        """What it takes in the file and in memory."""
        return math.prod(self.shape) * SIZES[self.dtype]


@dataclass(frozen=True)
class Block:
    """What is read at once: the parameters of a layer, of the embeddings, of the head, or the rest.

    `pages` is the checksum of its pieces in their order, by `Checksum`. The experts of a mixture's layer are its last
    pieces, from `experts_at` on, which is None where there are none.
    """

    name: str
    kind: Kind
    at: int
    bytes: int
    pages: str
    experts_at: int | None
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Index:
    """All of a store. `parameters` says by name how each is put together (core/model/store_parts.py).

    `loading` is what transformers said when it loaded the base from its own files.
    """

    blocks: tuple[Block, ...]
    parameters: dict[str, dict[str, Any]]
    loading: dict[str, Any]

    @property
    def bytes(self) -> int:
        """The size of the file of weights."""
        return max((block.at + block.bytes for block in self.blocks), default=0)

    def to_json(self) -> dict[str, Any]:
        """As it is written; `from_json` reads it."""
        return asdict(self)

    @staticmethod
    def from_json(values: Any) -> "Index":
        """The index that was written. Raises StoreError where it is none, or names bytes that cannot be."""
        try:
            blocks = tuple(_block(each) for each in values["blocks"])
            index = Index(blocks, dict(values["parameters"]), dict(values["loading"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"The store's index cannot be read ({type(error).__name__}).") from None
        _refuse_odd(index)
        return index


def _block(values: dict[str, Any]) -> Block:
    pieces = tuple(_piece(each) for each in values["pieces"])
    return Block(**{**values, "pieces": pieces})


def _piece(values: dict[str, Any]) -> Piece:
    strides = values["strides"]
    return Piece(**{**values, "shape": tuple(values["shape"]), "strides": None if strides is None else tuple(strides)})


def _refuse_odd(index: Index) -> None:
    end = 0
    for block in index.blocks:
        inside = 0
        if block.at % PAGE or block.at < end:
            raise StoreError(f"The store's index is odd: {block.name} begins at byte {block.at}.")
        for piece in block.pieces:
            known = piece.dtype in SIZES and piece.parameter in index.parameters and min(piece.shape, default=0) >= 0
            if not known or piece.at % ALIGNMENT or piece.at < inside or piece.at + piece.bytes > block.bytes:
                raise StoreError(f"The store's index is odd: {piece.parameter} ({piece.part}) cannot be as it says.")
            inside = piece.at + piece.bytes
        end = block.at + block.bytes


class Checksum:
    """The SHA-256 of the sums of pages: it knows a changed bit, and pages that changed places, at memory's speed.

    A page's sum is that of its 64-bit numbers, which wraps around. The last page of a piece may be shorter.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, data: memoryview) -> None:
        """Count more bytes in. A call with less than whole pages ends a piece."""
        whole = len(data) // PAGE * PAGE
        pages = np.frombuffer(data[:whole], dtype="<i8").reshape(-1, PAGE // 8)
        self._digest.update(pages.sum(axis=1, dtype="<i8").tobytes())
        if whole < len(data):
            rest = bytes(data[whole:]).ljust(-(-(len(data) - whole) // 8) * 8, b"\0")
            self._digest.update(np.frombuffer(rest, dtype="<i8").sum(dtype="<i8").tobytes())

    def hex(self) -> str:
        """The checksum of what was added, in hexadecimal."""
        return self._digest.hexdigest()


def laid_out(sizes: Iterable[int], begins: int = 0) -> Iterator[int]:
    """Where pieces of these sizes begin when they follow one another from `begins` on, in bytes."""
    at = begins
    for size in sizes:
        at = aligned(at, ALIGNMENT)
        yield at
        at += size


def aligned(at: int, to: int) -> int:
    """The first multiple of `to` from `at` on."""
    return -(-at // to) * to
