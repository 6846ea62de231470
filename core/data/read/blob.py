"""Bytes to read from: a plain file, a .gz, or a member of a .zip, opened as one stream whose faults are sentences."""

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from core.errors import DataError

Progress = Callable[[int], None]

BLOCK = 2**20
LARGEST_RATIO = 200  # conversations compress by 3 to 20; what unpacks further is refused, once it is
RATIO_MATTERS_FROM = 100 * 10**6  # unpacked bytes


@dataclass(frozen=True)
class Blob:
    """Something that can be opened again and again. `inner` is its name without the compression's suffix.

    `size` is what it takes on disk; `path` is where it lies if it is a plain file.
    """

    name: str
    inner: str
    size: int
    path: Path | None
    opener: Callable[[], tuple[BinaryIO, Callable[[int], int]]]

    def open(self, progress: Progress | None = None) -> io.BufferedReader:
        """A stream of its bytes, unpacked. Reading raises DataError where the file is damaged."""
        try:
            stream, consumed = self.opener()
        except FileNotFoundError:
            raise DataError(f"There is no file {self.name}. Check the path, or upload it again.") from None
        except OSError as error:
            raise DataError(f"{self.name} cannot be read: {error.strerror or error}. Check who may read it.") from None
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:  # what zipfile says of a member
            raise _damaged(self.name, error) from None
        return io.BufferedReader(_Watched(self.name, stream, consumed, progress), BLOCK)

    def head(self, length: int) -> bytes:
        """Its first bytes."""
        with self.open() as stream:
            return stream.read(length)


def plain(path: Path, name: str) -> Blob:
    """A file as it lies there."""

    def opener() -> tuple[BinaryIO, Callable[[int], int]]:
        return cast(BinaryIO, path.open("rb", buffering=0)), lambda produced: produced

    return Blob(name, _without_gz(name), path.stat().st_size, path, opener)


def gzipped(path: Path, name: str) -> Blob:
    """A file that is packed by gzip; progress counts its packed bytes."""

    def opener() -> tuple[BinaryIO, Callable[[int], int]]:
        file = path.open("rb")
        return cast(BinaryIO, _Gzip(file)), lambda produced: file.tell()

    return Blob(name, _without_gz(name), path.stat().st_size, None, opener)


class _Gzip(gzip.GzipFile):
    """A gzip stream that closes the file below it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._below = file

    def close(self) -> None:
        super().close()
        self._below.close()


def zip_member(path: Path, name: str, member: zipfile.ZipInfo) -> Blob:
    """One file within a .zip; nothing is unpacked to the disk."""

    def opener() -> tuple[BinaryIO, Callable[[int], int]]:
        with zipfile.ZipFile(path) as archive:  # the member keeps the file open until it is closed itself
            stream = archive.open(member)
        whole = max(member.file_size, 1)
        packed = cast(BinaryIO, _Gzip(cast(BinaryIO, stream)) if name.lower().endswith(".gz") else stream)
        return packed, lambda produced: min(member.compress_size, member.compress_size * produced // whole)

    return Blob(name, _without_gz(name), member.compress_size, None, opener)


def _damaged(name: str, error: Exception) -> DataError:
    reason = str(error).split("\n")[0][:100].rstrip(".")
    return DataError(f"{name} is damaged ({reason}). Download or pack it again.")


def _without_gz(name: str) -> str:
    return name[:-3] if name.lower().endswith(".gz") else name


class _Watched(io.RawIOBase):
    """A stream that reports how far it is, and says in a sentence what is wrong with the file below it."""

    def __init__(self, name: str, stream: BinaryIO, consumed: Callable[[int], int], progress: Progress | None) -> None:
        self._name, self._stream, self._consumed, self._progress = name, stream, consumed, progress
        self._produced = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            block = self._stream.read(len(buffer))
        except EOFError:
            raise DataError(f"{self._name} is truncated: its compressed data ends early. Download it again.") from None
        except (zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
            raise _damaged(self._name, error) from None
        except OSError as error:
            raise DataError(f"{self._name} cannot be read: {error.strerror or error}.") from None
        buffer[: len(block)] = block
        self._produced += len(block)
        consumed = self._consumed(self._produced)
        if self._produced > RATIO_MATTERS_FROM and self._produced > LARGEST_RATIO * max(consumed, 1):
            raise DataError(
                f"{self._name} unpacks to more than {LARGEST_RATIO} times its size, which is not plausible for "
                f"conversations. If you trust it, unpack it yourself and use the file inside."
            )
        if self._progress:
            self._progress(consumed)
        return len(block)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
