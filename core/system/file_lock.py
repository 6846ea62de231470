"""Locks on files, which the system frees when their holder dies, however it dies."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

AGAIN_SECONDS = 0.02


class Lock:
    """An exclusive lock on the file `path`, which is made. It is this process' own: a fork has no part in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: IO[str] | None = None

    @property
    def held(self) -> bool:
        """Whether it is held through this object."""
        return self._handle is not None

    def take(self, patience_seconds: float | None = None) -> bool:
        """Take the lock, waiting so long where another holds it, without end by default. Returns whether it is held."""
        handle = self.path.open("a+")
        deadline = None if patience_seconds is None else time.monotonic() + patience_seconds
        try:
            while not _try(handle):
                if deadline is not None and time.monotonic() >= deadline:
                    handle.close()
                    return False
                time.sleep(AGAIN_SECONDS)
        except BaseException:
            handle.close()
            raise
        self._handle = handle
        _held.add(self)
        return True

    def free(self) -> None:
        """Give the lock back; nothing where it is not held."""
        handle, self._handle = self._handle, None
        _held.discard(self)
        if handle is not None:
            _free(handle)
            handle.close()

    def remove(self) -> None:
        """Give the lock back and take its file away: first, or on Windows, where an open one cannot go, last."""
        if sys.platform == "win32":
            self.free()
        try:
            with contextlib.suppress(PermissionError):  # there another may have opened it meanwhile
                self.path.unlink(missing_ok=True)
        finally:
            self.free()

    def _forget(self) -> None:
        """In a fork: close what was inherited, which would hold the lock on when its holder is long dead."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on `path`, waiting until it is free."""
    lock = Lock(path)
    lock.take()
    try:
        yield
    finally:
        lock.free()


if sys.platform == "win32":

    def _try(handle: IO[str]) -> bool:
        handle.seek(0)
        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _free(handle: IO[str]) -> None:
        handle.seek(0)
        msvcrt.locking(handle.fileno(), msvcrt.LK_UNLCK, 1)

else:

    def _try(handle: IO[str]) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _free(handle: IO[str]) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)

    def _forget_all() -> None:
        for lock in list(_held):
            lock._forget()

    os.register_at_fork(after_in_child=_forget_all)
