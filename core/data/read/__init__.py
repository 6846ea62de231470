"""Files to rows: any chat file in, one after another, each refusal with the file, the line, and what to do."""

from __future__ import annotations

from pathlib import Path

from core.data.read.kinds import SUFFIXES
from core.data.read.notes import Notes
from core.data.read.part import open_part
from core.data.read.places import find_blobs
from core.data.read.source import FileInfo, Source
from core.data.read.splits import uses_of_files

__all__ = ["SUFFIXES", "FileInfo", "Source", "open_source"]


def open_source(path: Path, encoding: str = "auto", name: str | None = None) -> Source:
    """The dataset at `path`, a file or a folder of files read in name order; `name` is what the person calls it.

    Each file knows what it is for, where their names tell train, validation and test apart.
    Raises DataError where there is nothing to read, in one sentence: file, line, what to do.
    """
    notes = Notes()
    name = name or path.name
    parts = [open_part(blob, encoding, notes) for blob in find_blobs(path, name, notes)]
    files = [FileInfo(part.name, part.kind, part.encoded.name if part.encoded else "", part.evidence) for part in parts]
    for info, use in zip(files, uses_of_files([part.name for part in parts]), strict=True):
        info.use = use
    return Source(name, sum(part.bytes for part in parts), files, parts, notes)
