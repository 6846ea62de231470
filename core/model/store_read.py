"""Opens a store: fills a model with its parameters, each block checked as it is read."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import FileIO
from queue import SimpleQueue
from typing import Any

import torch
from bitsandbytes.nn import Int8Params, Params4bit
from transformers import PreTrainedModel

from core.basemodel.store_index import Block, Checksum, StoreError
from core.basemodel.stores import Store
from core.model.hf_seam import out_of, put
from core.model.store_parts import Parts, as_tensor, put_together
from core.model.store_write import chunks
from core.text.library_errors import telling_line

# More threads than this read no faster, and a run may have few cores.
THREADS = 2
# So many blocks are read ahead of a card: each is copied there and let go.
AHEAD = 2
KINDS = {Params4bit: "4bit", Int8Params: "8bit"}


@contextmanager
def opening(store: Store, device: torch.device) -> Iterator[None]:
    """Inside, `from_pretrained` fills the model from `store`, on `device`; reading begins at once, in threads.

    Raises StoreError where the store is damaged or does not suit the model.
    """
    reader = BlockReader(store, None if device.type == "cpu" else AHEAD)
    try:
        reader.begin()
        with out_of(lambda model: _filled(model, store, device, reader)):
            yield
    finally:
        reader.close()


class BlockReader:
    """Reads the blocks of a store in their order, at most `ahead` of whom they are for; None: all, into their place."""

    def __init__(self, store: Store, ahead: int | None) -> None:
        self._store, self._blocks = store, store.index.blocks
        self._ahead = len(self._blocks) if ahead is None else ahead
        self._pool, self._over = ThreadPoolExecutor(THREADS, "store"), threading.Event()
        self._files = opened(store)  # once: a store that is deleted meanwhile is read to its end
        self._read: list[Future[list[torch.Tensor]]] = []

    def begin(self) -> None:
        """Begin to read, before anybody asks."""
        self._submit(0)

    def __iter__(self) -> Iterator[tuple[Block, list[torch.Tensor]]]:
        """Each block, with the bytes of its pieces. Raises StoreError."""
        for number, block in enumerate(self._blocks):
            self._submit(number)
            future, self._read[number] = self._read[number], Future()
            yield block, future.result()

    def close(self) -> None:
        """Read no further."""
        self._over.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        while not self._files.empty():
            self._files.get().close()

    def _submit(self, number: int) -> None:
        for block in self._blocks[len(self._read) : number + self._ahead]:
            # Here, not in the threads: each has a heap of its own, which would be left half empty.
            data = [torch.empty(piece.bytes, dtype=torch.uint8) for piece in block.pieces]
            self._read.append(self._pool.submit(self._block, block, data))

    def _block(self, block: Block, data: list[torch.Tensor]) -> list[torch.Tensor]:
        file = self._files.get()
        try:
            if not self._over.is_set():
                read_block(file, self._store.label, block, data)
        finally:
            self._files.put(file)
        return data


def opened(store: Store) -> "SimpleQueue[FileIO]":
    """The file of a store's weights, opened for each thread. Raises StoreError."""
    files: SimpleQueue[FileIO] = SimpleQueue()
    try:
        for _ in range(THREADS):
            files.put(store.weights.open("rb", buffering=0))
    except OSError as error:
        raise _unreadable(store.label, error) from None
    return files


def read_block(file: FileIO, label: str, block: Block, into: list[torch.Tensor]) -> None:
    """Read a block's pieces into tensors of bytes on the CPU, which may be views of one, and check them.

    `file` is the store's file of weights, opened without a buffer, and `label` names its base. Raises StoreError.
    """
    checksum = Checksum()
    try:
        for piece, data in zip(block.pieces, into, strict=True):
            file.seek(block.at + piece.at)
            for part in chunks(memoryview(data.numpy())):
                _read_whole(file.readinto, part)
                checksum.add(part)
    except OSError as error:
        raise _unreadable(label, error) from None
    if checksum.hex() != block.pages:
        raise StoreError(f"The quantised copy of {label} is damaged: {block.name} is not what was written.")


def _unreadable(label: str, error: OSError) -> StoreError:
    return StoreError(f"The quantised copy of {label} cannot be read: {error.strerror or type(error).__name__}.")


def _read_whole(readinto: Callable[[Any], int | None], part: memoryview) -> None:
    """One call may give less than it was asked for."""
    while part:
        count = readinto(part)
        if not count:
            raise OSError(0, "it is shorter than it was")
        part = part[count:]


def _filled(model: PreTrainedModel, store: Store, device: torch.device, reader: BlockReader) -> dict[str, Any]:
    """What the store's index says of loading. Nothing that is odd in a store keeps the base from being loaded."""
    try:
        return _fill(model, store, device, reader)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"The quantised copy of {store.label} is odd ({telling_line(error, kind=True)}).") from error


def _fill(model: PreTrainedModel, store: Store, device: torch.device, reader: BlockReader) -> dict[str, Any]:
    index, names = store.index, set(model.state_dict())
    left = names - index.parameters.keys() - set(index.loading["missing"])
    if left or not index.parameters.keys() <= names:
        raise StoreError(f"The quantised copy of {store.label} is of another architecture than its config.json says.")
    codes: dict[bytes, torch.Tensor] = {}
    for block, data in reader:
        for name, parts in _parts_of(block, data, device, codes).items():
            empty, about = model.get_parameter_or_buffer(name), index.parameters[name]
            if KINDS.get(type(empty), "plain") != about["kind"] or not _fits(empty, about, parts):
                raise StoreError(f"The quantised copy of {store.label} is of another architecture: {name}.")
            buffer = about["kind"] == "plain" and not isinstance(empty, torch.nn.Parameter)
            put(model, name, parts["plain"] if buffer else put_together(empty, about, parts))
    return index.loading


def _fits(empty: torch.Tensor, about: dict[str, Any], parts: Parts) -> bool:
    """Whether what was stored has the shape that the architecture asks for."""
    shape = {"4bit": lambda: about["shape"], "8bit": lambda: parts["data"].shape, "plain": lambda: parts["plain"].shape}
    return tuple(shape[about["kind"]]()) == tuple(empty.shape)


def _parts_of(
    block: Block, data: list[torch.Tensor], device: torch.device, codes: dict[bytes, torch.Tensor]
) -> dict[str, Parts]:
    """The tensors of a block on `device`, by parameter and part.

    bitsandbytes has one tensor for the code of the maxima of all layers (functional.py, `name2qmap`): so has this.
    """
    by_name: dict[str, Parts] = {}
    for piece, read in zip(block.pieces, data, strict=True):
        tensor = as_tensor(read, piece.dtype, piece.shape, piece.strides)
        if piece.part == "nested_code":
            tensor = codes.setdefault(read.numpy().tobytes(), tensor.to(device))
        by_name.setdefault(piece.parameter, {})[piece.part] = tensor.to(device)
    return by_name
