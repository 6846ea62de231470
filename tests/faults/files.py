"""What a process does to the files of one folder, call by call: counted, and made to fail or to kill at any of them."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch

# Nothing of these needs room on the disk.
FREE = frozenset({"rename", "replace", "remove", "unlink", "rmdir"})
Act = Callable[["Call"], None]


class Call:
    """One call: what is done to which path; `half` does it by half, where that can be."""

    def __init__(self, number: int, kind: str, path: str, half: Callable[[], None] = lambda: None) -> None:
        self.number, self.kind, self.path, self.half = number, kind, path, half

    @property
    def needs_room(self) -> bool:
        """Whether a full disk refuses it."""
        return self.kind not in FREE


def kill_at(number: int) -> Act:
    """Kill this process with -9 at call `number`, a write half done."""

    def act(call: Call) -> None:
        if call.number == number:
            call.half()
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def full_from(number: int, place: str = "") -> Act:
    """From call `number` on there is no room on the disk for what has `place` in its path."""

    def act(call: Call) -> None:
        if call.number >= number and call.needs_room and place in call.path:
            call.half()
            raise no_space(call.path)

    return act


def no_space(path: str) -> OSError:
    """What the system says of a full disk."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


class Files:
    """Watches, from `begin` on, the calls of this process for files in `folder`, and asks `act` before each.

    Of a handle's writes only those with a power of two as number are asked about, or all of those of bytes with
    `each_write`: a file that is half there is half there. What Rust writes by itself, safetensors, is one write.
    """

    def __init__(self, folder: Path, act: Act, each_write: bool = False, but: Sequence[str] = ()) -> None:
        """Paths in which one of `but` occurs are left alone."""
        self.folder, self.act, self.each_write = f"{folder}{os.sep}", act, each_write
        self.but = ("worker.log", *but)
        self.count = 0

    def begin(self) -> None:
        """From now on."""
        for name in ("mkdir", "rename", "replace", "remove", "unlink", "rmdir"):
            setattr(os, name, self._watched(name, getattr(os, name)))
        os.fsync = self._flush(os.fsync)  # type: ignore[assignment]
        os.open = self._open_low(os.open)  # type: ignore[assignment]
        io.open = builtins.open = self._open(io.open)  # type: ignore[assignment]
        safetensors.torch.serialize_file = self._serialize(safetensors.torch.serialize_file)

    def call(self, kind: str, path: str, half: Callable[[], None] = lambda: None) -> None:
        """About to do `kind` to `path`."""
        if f"{path}{os.sep}".startswith(self.folder) and not any(each in path for each in self.but):
            self.act(Call(self.count, kind, path, half))
            self.count += 1

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(path: Any, *more: Any, **named: Any) -> Any:
            self.call(name, _full(path, named.get("dir_fd") or named.get("src_dir_fd")))
            return real(path, *more, **named)

        return watched

    def _flush(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def flush(descriptor: int) -> None:
            self.call("flush", _path_of(descriptor))
            real(descriptor)

        return flush

    def _open_low(self, real: Callable[..., int]) -> Callable[..., int]:
        def low(path: Any, flags: int, *more: Any, **named: Any) -> int:
            if flags & os.O_CREAT:
                self.call("make", _full(path, named.get("dir_fd")))
            return real(path, flags, *more, **named)

        return low

    def _open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
            writes = any(letter in mode for letter in "wax")
            path = _path_of(file) if isinstance(file, int) else os.fspath(file)
            if not writes or not isinstance(path, str) or not path.startswith(self.folder):
                return real(file, mode, *more, **named)
            if not isinstance(file, int):
                self.call("open", path)
            return _Handle(real(file, mode, *more, **named), path, self)

        return watched

    def _serialize(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def serialize(tensors: Any, file: Any, *more: Any, **named: Any) -> Any:
            def half() -> None:
                real(tensors, file, *more, **named)
                os.truncate(file, Path(file).stat().st_size // 2)

            self.call("write", os.fspath(file), half)
            return real(tensors, file, *more, **named)

        return serialize


def _path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _full(path: Any, folder: int | None) -> str:
    text = os.fsdecode(path)
    return text if folder is None else f"{_path_of(folder)}/{text}"


class _Handle:
    """An open file whose writes are watched."""

    def __init__(self, real: Any, path: str, files: Files) -> None:
        self._real, self._path, self._files, self._writes = real, path, files, 0

    def write(self, data: Any) -> Any:
        def half() -> None:
            self._real.write(data[: len(data) // 2])
            self._real.flush()

        self._writes += 1
        if self._files.each_write and isinstance(data, bytes | memoryview) or self._writes & (self._writes - 1) == 0:
            self._files.call("write", self._path, half)
        return self._real.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __enter__(self) -> _Handle:
        self._real.__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        self._real.__exit__(*reason)
