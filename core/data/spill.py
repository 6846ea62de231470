"""Conversations in order, in little memory: as lines of JSON in a file on disk where there are many."""

import json
import mmap
import sys
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, overload

from core.data.conversation import Conversation
from core.errors import DataError

_MEMORY_BYTES = 64 * 2**20
_WAITING_BYTES = 2**20
# After so many bytes the pages that reading brought into memory are given back.
_MAPPED_BYTES = 2**24
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
        if self._bytes > (self._memory_bytes if self._file is None else _WAITING_BYTES):
            self._write()

    def seal(self) -> None:
        """Write what waits, and make what is on disk readable. Nothing can be appended afterwards."""
        if self._file is not None:
            self._write()
            self._file.open()

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> list[Conversation]: ...
    def __getitem__(self, index: int | slice) -> Conversation | list[Conversation]:
        if isinstance(index, slice):
            return [self._at(each) for each in range(*index.indices(len(self)))]
        return self._at(range(len(self))[index])

    def __iter__(self) -> Iterator[Conversation]:
        return map(self._at, range(len(self)))

    def _at(self, index: int) -> Conversation:
        line = self._lines[index] if self._file is None else self._file.line(index)
        kept = json.loads(line.decode())
        return Conversation(self.rows[index], kept.get("messages", []), kept.get("tools"), kept.get("text"))

    def _write(self) -> None:
        if self._file is None:
            self._file = _File()
        self._file.write(self._lines)
        self._lines, self._bytes = [], 0


class _File:
    """Lines in a file without a name, read through a memory map whose pages are given back."""

    def __init__(self) -> None:
        self._starts = array("q", [0])
        self._read_bytes = 0
        with _full_disk_named():
            self._disk: IO[bytes] = tempfile.TemporaryFile(prefix="nibble-")  # noqa: SIM115

    def write(self, lines: list[bytes]) -> None:
        """Add lines at the end. Raises DataError where the disk is full."""
        with _full_disk_named():
            for line in lines:
                self._disk.write(line)
                self._starts.append(self._starts[-1] + len(line))

    def open(self) -> None:
        """Make what was written readable."""
        with _full_disk_named():
            self._disk.flush()
        self._map = mmap.mmap(self._disk.fileno(), 0, access=mmap.ACCESS_READ)
        self._disk.close()

    def line(self, index: int) -> bytes:
        """One line."""
        line = self._map[self._starts[index] : self._starts[index + 1]]
        self._read_bytes += max(len(line), mmap.PAGESIZE)
        if self._read_bytes > _MAPPED_BYTES and sys.platform != "win32":
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read_bytes = 0
        return line


@contextmanager
def _full_disk_named() -> Iterator[None]:
    """Say of a full disk which one it is."""
    try:
        yield
    except OSError as error:
        folder = tempfile.gettempdir()
        raise DataError(f"Could not save the conversations to {folder}: {error}. Free some space there.") from None
