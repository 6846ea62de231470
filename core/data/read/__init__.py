"""Files to rows: any chat file in, one after another, each refusal with the file, the line, and what to do."""

from pathlib import Path

from core.data.read.blob import Blob
from core.data.read.encoding import EncodingUnsure, offers_of
from core.data.read.kinds import HEAD as KIND_HEAD
from core.data.read.kinds import SUFFIXES, kind_of
from core.data.read.letters import Guesses
from core.data.read.notes import Notes
from core.data.read.part import TABLES, Part, open_part
from core.data.read.places import find_blobs
from core.data.read.source import FileInfo, Source
from core.data.read.splits import uses_of_files

_FILES_OFFERED = 100

__all__ = ["SUFFIXES", "FileInfo", "Source", "open_source"]


def open_source(path: Path, encoding: str = "auto", name: str | None = None) -> Source:
    """The dataset at `path`, a file or a folder of files read in name order; `name` is what the person calls it.

    Each file knows what it is for, where their names tell train, validation and test apart.
    Raises DataError where there is nothing to read, in one sentence: file, line, what to do.
    """
    notes = Notes()
    name = name or path.name
    parts = _open_parts(find_blobs(path, name, notes), encoding, notes)
    files = [FileInfo(part.name, part.kind, part.encoded.name if part.encoded else "", part.evidence) for part in parts]
    for info, use in zip(files, uses_of_files([part.name for part in parts]), strict=True):
        info.use = use
    return Source(name, sum(part.bytes for part in parts), files, parts, notes)


def encodings_offered(path: Path) -> Guesses | None:
    """What the letters of the first file that is in no Unicode would look like in each encoding; None without one.

    Of many files the first hundred are looked at. Raises DataError where there is nothing to read.
    """
    for blob in find_blobs(path, path.name, Notes())[:_FILES_OFFERED]:
        if kind_of(blob.name, blob.inner, blob.head(KIND_HEAD)) in TABLES:
            continue
        found = offers_of(blob)
        if found is not None:
            return found
    return None


def _open_parts(blobs: list[Blob], encoding: str, notes: Notes) -> list[Part]:
    """Each file opened; one whose encoding is not sure is read as those beside it, if it can be."""
    opened: list[Part | Blob] = []
    unsure: EncodingUnsure | None = None
    for blob in blobs:
        try:
            opened.append(open_part(blob, encoding, notes))
        except EncodingUnsure as error:
            unsure = unsure or error
            opened.append(blob)
    like = {part.encoded.codec for part in opened if isinstance(part, Part) and part.encoded and part.encoded.guessed}
    if unsure is not None and len(like) != 1:
        raise unsure
    return [part if isinstance(part, Part) else open_part(part, encoding, notes, like) for part in opened]
