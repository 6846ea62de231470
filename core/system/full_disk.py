"""A full disk: how it is known, what to do about it, and lines that wait until there is room for them."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Iterable
from pathlib import Path

# Libraries that write past Python tell of a full disk in words of their own: safetensors, torch, Windows.
_FULL = ("No space left on device", "os error 28", "os error 112", "PytorchStreamWriter failed", "file write failed")


def is_disk_full(error: BaseException) -> bool:
    """Whether `error` says that there is no room on the disk, or no more of it for this person.

    Or the one that it came up in the handling of: torch closes its file, and raises anew, when writing has failed.
    """
    if error.__context__ is not None and is_disk_full(error.__context__):
        return True
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return True
    return any(words in str(error) for words in _FULL)


def free_some(folder: Path) -> str:
    """What to do, as a sentence: `folder` is on the disk that is full."""
    return f"Free some space on the disk of {folder}, such as by deleting old runs."


class Lines:
    """Appends whole lines to files. What a full disk does not take waits in memory, in order, for the next line."""

    def __init__(self) -> None:
        self._waiting: dict[Path, bytes] = {}
        self._one_at_a_time = threading.Lock()

    @property
    def waiting(self) -> bool:
        """Whether there is something that found no room yet."""
        return bool(self._waiting)

    def append(self, file: Path, line: bytes) -> None:
        """Append `line`, which ends with a line break. Raises OSError for anything but a full disk."""
        with self._one_at_a_time:
            earlier = self._waiting.pop(file, b"")
            left = _append(file, earlier + line, begins_anew=not earlier)
            if left:
                self._waiting[file] = left

    def flush(self, files: Iterable[Path]) -> None:
        """Have all that waits written, and `files` on the disk itself. Raises OSError where there is no room."""
        with self._one_at_a_time:
            for file, text in list(self._waiting.items()):
                self._waiting[file] = _append(file, text, begins_anew=False)
                if self._waiting[file]:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
                del self._waiting[file]
        for file in files:
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())


def _append(file: Path, text: bytes, begins_anew: bool) -> bytes:
    """Append `text`; a half line that a crash has left there is ended first. Returns what found no room."""
    try:
        with file.open("a+b", buffering=0) as handle:
            if begins_anew and handle.tell() and not _ends_whole(handle):
                text = b"\n" + text
            while text:
                text = text[handle.write(text) :]
    except OSError as error:
        if not is_disk_full(error):
            raise
    return text


def _ends_whole(handle: io.FileIO) -> bool:
    handle.seek(-1, os.SEEK_END)
    return handle.read(1) == b"\n"
