"""Zips and tars, read as what they are: data from a stranger. What may be in one, and how far it may unpack.

No entry is a link or a device, none lies outside of the folder it is unpacked in, on any system; no more comes out of
one than its entries say, and they may not say too much. An archive within an archive stays one.
"""

import gzip
import io
import re
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from core.errors import NibbleError
from core.sizes import show_bytes
from core.untrusted.paths import LONGEST_NAME, is_device_name

BLOCK = 2**20
_GZIP = b"\x1f\x8b"
_TAR_AT, _TAR = 257, b"ustar"
# Long names, and notes of any kind: tarfile reads them into memory whole.
_HEADERS = frozenset(b"LKxgX")
_LONGEST_HEADER = 2**16
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_LOCKED = 0x1  # a flag of a zip's entry
_NOT_UNPACKED = "It was not unpacked."


class ArchiveError(NibbleError):
    """An archive that is damaged, or that means harm; says which entry, and what to do."""


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold: so many entries, bytes in all, times its own size, and folders in one another.

    How many times its size is asked only beyond `free_bytes`: what is small does no harm.
    """

    entries: int
    bytes: int
    ratio: int = 200
    free_bytes: int = 0
    depth: int = 16


@dataclass(frozen=True)
class ArchiveEntry:
    """One file in an archive: its name with slashes, and the bytes that it says it has."""

    name: str
    bytes: int


def is_archive(path: Path) -> bool:
    """Whether `path` is a file that `entries_of` can read, by its first bytes."""
    return path.is_file() and _kind(path) != ""


def entries_of(path: Path, limits: ArchiveLimits) -> list[ArchiveEntry]:
    """The files in the zip or tar (also gzipped) at `path`. Raises ArchiveError where it is not safe to unpack."""
    with _said(path.name):
        if _kind(path) == "zip":
            with zipfile.ZipFile(path) as packed:
                members = packed.infolist()
                check_zip(members, path.stat().st_size, limits)
                found = [ArchiveEntry(each.filename, each.file_size) for each in members if not each.is_dir()]
        else:
            found = [entry for entry, _ in _tar_files(path, limits)]
    _refuse_twins(found)
    return found


def unpack(path: Path, wanted: Mapping[str, Path], limits: ArchiveLimits) -> None:
    """Write the entries that `wanted` names to the files it gives for them. Raises ArchiveError, OSError.

    All is checked anew: the file may have been replaced since it was listed.
    """
    entries = {entry.name: entry for entry in entries_of(path, limits)}
    with _said(path.name):
        if _kind(path) == "zip":
            with zipfile.ZipFile(path) as packed:
                for name, target in wanted.items():
                    with packed.open(name) as stream:
                        _copy(stream, target, entries[name])
            return
        for entry, stream in _tar_files(path, limits):
            if entry.name in wanted:
                _copy(stream, wanted[entry.name], entry)


def check_zip(members: list[zipfile.ZipInfo], packed_bytes: int, limits: ArchiveLimits) -> None:
    """Raise ArchiveError where the entries of a zip of `packed_bytes` are not safe, or more than `limits` allow."""
    check_amount(members, packed_bytes, limits)
    for member in members:
        _check_name(member.orig_filename.removesuffix("/"), limits)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(member.filename, "a link to another place, or a device")
        if member.flag_bits & _LOCKED:
            raise ArchiveError("The zip is protected by a password. Unpack it yourself and use its contents.")
        if member.compress_type not in _METHODS:
            raise ArchiveError("The zip uses an unsupported compression. Pack it again as an ordinary zip.")


def check_amount(members: list[zipfile.ZipInfo], packed_bytes: int, limits: ArchiveLimits) -> None:
    """Raise ArchiveError where a zip of `packed_bytes` holds too many entries, or unpacks too far."""
    if len(members) > limits.entries:
        raise ArchiveError(f"The zip contains {len(members):,} files; at most {limits.entries:,} are allowed.")
    for member in members:
        _check_ratio(member.filename, member.file_size, member.compress_size, limits)
    # Entries may share their packed bytes: so all together are held against the whole file too.
    _check_ratio("all of it", sum(member.file_size for member in members), packed_bytes, limits)
    _check_size(sum(member.file_size for member in members), limits)


def _tar_files(path: Path, limits: ArchiveLimits) -> Iterator[tuple[ArchiveEntry, IO[bytes]]]:
    """The files of a tar, one after the other: each is to be read before the next is asked for."""
    with _unzipped(path, limits) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as packed:
        total = 0
        for number, member in enumerate(packed, start=1):
            if number > limits.entries:
                raise ArchiveError(f"The tar contains more than {limits.entries:,} files, which is too many.")
            _check_name(member.name.removeprefix("./").removesuffix("/") or "here", limits)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise _refused(member.name, "a link to another place, or a device")
            if member.size < 0:
                raise _refused(member.name, "of less than no bytes")
            total += member.size
            _check_size(total, limits)
            inside = packed.extractfile(member)
            if inside is not None:
                yield ArchiveEntry(member.name.removeprefix("./"), member.size), inside


class _Member(tarfile.TarInfo):
    """An entry of a tar whose headers are of a size that names have."""

    def _proc_member(self, tarfile: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type[0] in _HEADERS and not 0 <= self.size <= _LONGEST_HEADER:
            raise _refused(self.name, "whose name is too long")
        return super()._proc_member(tarfile)  # type: ignore[misc]


@contextmanager
def _unzipped(path: Path, limits: ArchiveLimits) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as stream:
            yield cast(IO[bytes], io.BufferedReader(_Bounded(stream, path.stat().st_size, limits), BLOCK))


class _Bounded(io.RawIOBase):
    """What comes out of a gzip, for as long as it is not too much for what goes in."""

    def __init__(self, stream: gzip.GzipFile, packed_bytes: int, limits: ArchiveLimits) -> None:
        self._stream, self._packed, self._limits, self._bytes = stream, packed_bytes, limits, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        self._bytes += len(block)
        _check_ratio("all of it", self._bytes, self._packed, self._limits)
        _check_size(self._bytes, self._limits)
        return len(block)


def _copy(stream: IO[bytes], target: Path, entry: ArchiveEntry) -> None:
    """Copy at most as many bytes as were said: an archive can lie about them."""
    left = entry.bytes
    with target.open("xb") as copy:
        while block := stream.read(min(BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                raise ArchiveError(f"{entry.name[:80]} unpacks to more than the archive says. {_NOT_UNPACKED}")
            copy.write(block)


def _check_name(name: str, limits: ArchiveLimits) -> None:
    """Raise ArchiveError where a name leads out of its folder on any system, or into nothing of a file's."""
    parts = name.split("/")
    outside = name.startswith(("/", "~")) or any(bad in name for bad in "\\:") or ".." in parts
    if outside:
        raise _refused(name, "which would be outside its folder")
    odd = any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)
    if odd or any(part in ("", ".") or part != part.rstrip(" .") or is_device_name(part) for part in parts):
        raise _refused(name, "which is not a valid file name")
    if len(parts) > limits.depth or any(len(part.encode()) > LONGEST_NAME for part in parts):
        raise _refused(name, "which is too long or too deep")


def _refuse_twins(entries: list[ArchiveEntry]) -> None:
    """Two files of one name, also where a system does not tell capital letters apart: one would hide the other."""
    seen: set[str] = set()
    for entry in entries:
        known = unicodedata.normalize("NFC", entry.name).casefold()
        if known in seen:
            raise _refused(entry.name, "twice")
        seen.add(known)


def _check_ratio(name: str, unpacked: int, packed: int, limits: ArchiveLimits) -> None:
    if unpacked > limits.free_bytes and unpacked > limits.ratio * max(packed, 1):
        raise _refused(name, f"which unpacks to far more than it is, over {limits.ratio} times its size")


def _check_size(unpacked: int, limits: ArchiveLimits) -> None:
    if unpacked > limits.bytes:
        raise ArchiveError(f"It unpacks to {show_bytes(unpacked)}; at most {show_bytes(limits.bytes)} are allowed.")


def _refused(name: str, why: str) -> ArchiveError:
    return ArchiveError(f"The archive contains {re.sub(r'[^ -~]', '?', name)[:80]!r}, {why}. {_NOT_UNPACKED}")


def _kind(path: Path) -> str:
    """'zip', 'tar', or '' by the file's first bytes; what is gzipped is believed to be a tar."""
    with path.open("rb") as file:
        head = file.read(_TAR_AT + len(_TAR))
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    return "tar" if head.startswith(_GZIP) or head[_TAR_AT:] == _TAR else ""


@contextmanager
def _said(name: str) -> Iterator[None]:
    """Turn what the libraries say of a damaged archive into a sentence."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, gzip.BadGzipFile):
        raise ArchiveError(f"{name} is damaged or not a readable archive. Download it again.") from None
    except (RuntimeError, UnicodeError, ValueError) as error:
        raise ArchiveError(f"{name} is damaged ({type(error).__name__}). Download it again.") from None
