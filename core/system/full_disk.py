"""A full disk: how to recognise it, what to do about it, and lines that wait in memory until there is room."""

import errno
import io
import os
import threading
from collections.abc import Iterable
from pathlib import Path

# Libraries that write past Python tell of a full disk in words of their own: safetensors, torch, Windows.
_FULL = ("No space left on device", "os error 28", "os error 112", "PytorchStreamWriter failed", "file write failed")


def is_disk_full(error: BaseException) -> bool:
    """Whether `error` says that the disk, or the user's quota, is full.

    The error that was being handled counts too: torch raises a second one when it closes the file.
    """
    if error.__context__ is not None and is_disk_full(error.__context__):
        return True
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return True
    return any(words in str(error) for words in _FULL)


def free_some(folder: Path) -> str:
    """What to do about the full disk that `folder` is on, as a sentence."""
    return f"Free some space on the disk of {folder}, such as by deleting old runs."


class Lines:
    """Appends whole lines to files. What a full disk does not take waits in memory, in order."""

    def __init__(self) -> None:
        self._waiting: dict[Path, bytes] = {}
        self._one_at_a_time = threading.Lock()

    @property
    def waiting(self) -> bool:
        """Whether something is still waiting for room."""
        return bool(self._waiting)

    def append(self, file: Path, line: bytes) -> None:
        """Append `line`, which ends with a line break. Raises OSError for anything but a full disk."""
        with self._one_at_a_time:
            earlier = self._waiting.pop(file, b"")
            left = _append(file, earlier + line, begins_anew=not earlier)
            if left:
                self._waiting[file] = left

    def flush(self, files: Iterable[Path]) -> None:
        """Write all that waits, and flush `files` to the disk. Raises OSError where there is no room."""
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
    """Append `text`, after ending a half line that a crash left. Returns the rest that found no room."""
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
