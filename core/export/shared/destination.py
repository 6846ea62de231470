"""Where an export goes: an empty place with room for it, written beside and renamed when it is whole."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import NibbleError
from core.runs.manifest import flush_all
from core.sizes import show_bytes
from core.system.file_lock import remove_lock, try_lock
from core.system.full_disk import is_disk_full
from core.workspace import flush_folder, move

# What file systems take on top of the bytes themselves.
ROOM = 1.02
SPARE_BYTES = 2_000_000


class ExportError(NibbleError):
    """An export that cannot be made; says why, and what would do."""


class Broken(ExportError):
    """An export that answered otherwise than its reference: it is not handed over."""


def partial_of(out: Path) -> Path:
    """Where the export to `out` is written until it is whole."""
    return out.with_name(f".{out.name}.partial")


def refuse_place(out: Path) -> None:
    """Raise ExportError where `out` is a file, a folder with something in it, or cannot be made."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        kind = "is a file" if out.is_file() else "is not empty"
        raise ExportError(f"The folder {out} {kind}. Choose another, or empty it first; nothing is overwritten.")
    above = _nearest(out)
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ExportError(f"The folder {out} cannot be made: {above} is not a folder you can write to.")


def refuse_full_disk(out: Path, needed_bytes: int) -> None:
    """Raise ExportError where the disk of `out` has no room for `needed_bytes`, less what is there of it already."""
    partial = partial_of(out)
    here = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file()) if partial.is_dir() else 0
    needed, free = int(needed_bytes * ROOM) + SPARE_BYTES - here, shutil.disk_usage(_nearest(out)).free
    if needed > free:
        raise ExportError(
            f"The export takes {show_bytes(needed)}, and the disk of {out.parent} has {show_bytes(free)} free. "
            f"Free {show_bytes(needed - free)}, or choose a folder on another disk."
        )


def _nearest(path: Path) -> Path:
    """The first of `path` and the folders above it that is there."""
    return next(each for each in (path, *path.parents) if each.exists())


@contextmanager
def writing(out: Path, goes_on: bool = False) -> Iterator[Path]:
    """A folder to write the export in; it becomes `out` when the block ends well, flushed to the disk.

    Where the block fails, nothing of it is left. An export that `goes_on` finds what it had written when it was last
    stopped or killed; any other begins with an empty folder. Raises ExportError where the disk is full.
    """
    partial = partial_of(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = try_lock(out.with_name(f".{out.name}.lock"))
    if lock is None:
        raise ExportError(f"Another export is writing to {out}. Wait for it, or choose another folder.")
    if not goes_on:
        shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        yield partial
        for file in (path for path in partial.rglob("*") if path.is_file()):
            file.chmod(0o644)  # it is for others: another user's server reads it too
        flush_all(partial)
        if out.exists():
            out.rmdir()
        move(partial, out)
        flush_folder(out.parent)
    except BaseException as error:
        stopped = not isinstance(error, Exception)
        if not (goes_on and stopped):
            shutil.rmtree(partial, ignore_errors=True)
        if stopped or not is_disk_full(error):
            raise
        raise ExportError(
            f"The disk became full during the export, and the incomplete export was deleted. Free some space on the "
            f"disk of {out.parent}, then export again."
        ) from None
    finally:
        remove_lock(lock)
