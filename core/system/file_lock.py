"""Locks on files, which the system frees when their holder dies, however it dies; a fork does not inherit them."""

import contextlib
import sys
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout


def file_lock(path: Path) -> BaseFileLock:
    """An exclusive lock on the file `path`, for `with`, which waits until it is free. The file stays.

    Any thread may release it. Keeping the file also rules out filelock's soft lock, which would outlive its holder.
    """
    return FileLock(path, thread_local=False, preserve_lock_file=True, poll_interval=0.02)


def try_lock(path: Path, patience_seconds: float = 0.0) -> BaseFileLock | None:
    """The lock on `path`, held until `release`; None where another has it for all of `patience_seconds`."""
    lock = file_lock(path)
    try:
        lock.acquire(timeout=patience_seconds)
    except Timeout:
        return None
    return lock


def remove_lock(lock: BaseFileLock) -> None:
    """Release `lock` and delete its file: first, or last on Windows, where an open file cannot be deleted."""
    if sys.platform == "win32":
        lock.release()
    try:
        with contextlib.suppress(PermissionError):  # there another may have opened it meanwhile
            Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        lock.release()
