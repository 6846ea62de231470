"""Conversations in order, in little memory: as JSON in an Arrow file on disk where there are many."""

from __future__ import annotations

import json
import mmap
import sys
import tempfile
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import IO, Any, overload

from core.data.conversation import Conversation
from core.errors import DataError

_MEMORY_BYTES = 64 * 2**20
_BATCH_BYTES = 2**20
# After so many single looks the pages that they brought into memory are given back.
_LOOKS = 64
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str, check_circular=False)


class SpilledConversations(Sequence[Conversation]):
    """Conversations, each kept as one line of JSON: in memory up to `memory_bytes`, beyond that in a temporary file.

    Append all, `seal`, then read: by index, by slice, or one after the other. Each reading makes new objects.
    The file has no name that could be left behind; it goes with this object.
    """

    def __init__(self, memory_bytes: int = _MEMORY_BYTES) -> None:
        self.rows = array("q")
        self._memory_bytes = memory_bytes
        self._lines: list[bytes] = []
        self._bytes = 0
        self._file: _File | None = None

    def append(self, conversation: Conversation) -> None:
        """Add one at the end. Raises UnicodeEncodeError where it holds half a character, RecursionError, DataError."""
        kept: dict[str, Any] = {"messages": conversation.messages}
        if conversation.text is not None:
            kept = {"text": conversation.text}
        elif conversation.tools:
            kept["tools"] = conversation.tools
        line = _ENCODER.encode(kept).encode()
        self.rows.append(conversation.row)
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes > (self._memory_bytes if self._file is None else _BATCH_BYTES):
            self._write()

    def seal(self) -> None:
        """Write what waits, and make what is on disk readable. Nothing can be appended afterwards."""
        if self._file is not None:
            self._write()
            self._file.open()

    def position(self, row: int) -> int:
        """The index of the first conversation whose row in the file is `row` or comes after it."""
        return bisect_left(self.rows, row)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> list[Conversation]: ...
    def __getitem__(self, index: int | slice) -> Conversation | list[Conversation]:
        if isinstance(index, slice):
            start, end, step = index.indices(len(self))
            if step == 1:
                return list(self._between(start, end))
            return [self[each] for each in range(start, end, step)]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        if self._file is None:
            return _conversation(self.rows[index], self._lines[index])
        return _conversation(self.rows[index], self._file.line(index))

    def __iter__(self) -> Iterator[Conversation]:
        return self._between(0, len(self))

    def _between(self, start: int, end: int) -> Iterator[Conversation]:
        kept = self._lines[start:end] if self._file is None else self._file.lines(start, end)
        lines: Iterable[bytes | str] = kept
        for index, line in enumerate(lines, start=start):
            yield _conversation(self.rows[index], line)

    def _write(self) -> None:
        if self._file is None:
            self._file = _File()
        for start, end in _batches(self._lines):
            self._file.write(self._lines[start:end])
        self._lines, self._bytes = [], 0


class _File:
    """Lines in an Arrow file without a name, read through a memory map whose pages are given back."""

    def __init__(self) -> None:
        import pyarrow as pa

        self._pa = pa
        self._schema = pa.schema([("conversation", pa.string())])
        self._starts = [0]
        self._looks = 0
        self._lock = Lock()
        with _said_where():
            self._disk: IO[bytes] = tempfile.TemporaryFile(prefix="nibble-")  # noqa: SIM115
            self._writer = pa.ipc.new_file(pa.PythonFile(self._disk, mode="w"), self._schema)

    def write(self, lines: list[bytes]) -> None:
        """Add a batch. Raises DataError where the disk is full."""
        if not lines:
            return
        with _said_where():
            self._writer.write_batch(self._pa.record_batch([self._pa.array(lines, self._pa.string())], self._schema))
        self._starts.append(self._starts[-1] + len(lines))

    def open(self) -> None:
        """Make what was written readable."""
        with _said_where():
            self._writer.close()
            self._disk.flush()
        self._map = mmap.mmap(self._disk.fileno(), 0, access=mmap.ACCESS_READ)
        self._disk.close()
        self._reader = self._pa.ipc.open_file(self._pa.BufferReader(self._pa.py_buffer(self._map)))

    def line(self, index: int) -> str:
        """One line."""
        batch = bisect_right(self._starts, index) - 1
        line = self._batch(batch)[index - self._starts[batch]].as_py()
        self._looks += 1
        if self._looks % _LOOKS == 0:
            self._give_back()
        return str(line)

    def lines(self, start: int, end: int) -> Iterator[str]:
        """The lines from `start` to before `end`, a batch at a time."""
        batch = bisect_right(self._starts, start) - 1
        while start < end:
            first, last = self._starts[batch], min(end, self._starts[batch + 1])
            yield from self._batch(batch)[start - first : last - first].to_pylist()
            self._give_back()
            start, batch = last, batch + 1

    def _batch(self, number: int) -> Any:
        with self._lock:
            return self._reader.get_batch(number).column(0)

    def _give_back(self) -> None:
        if sys.platform != "win32":
            self._map.madvise(mmap.MADV_DONTNEED)


@contextmanager
def _said_where() -> Iterator[None]:
    """Say of a full disk which one it is."""
    try:
        yield
    except OSError as error:
        folder = tempfile.gettempdir()
        raise DataError(f"Could not save the conversations to {folder}: {error}. Free some space there.") from None


def _batches(lines: list[bytes]) -> Iterator[tuple[int, int]]:
    """Where to cut the lines so that each batch has about _BATCH_BYTES."""
    start, size = 0, 0
    for index, line in enumerate(lines, start=1):
        size += len(line)
        if size >= _BATCH_BYTES or index == len(lines):
            yield start, index
            start, size = index, 0


def _conversation(row: int, line: bytes | str) -> Conversation:
    kept = json.loads(line)
    return Conversation(row, kept.get("messages", []), kept.get("tools"), kept.get("text"))
