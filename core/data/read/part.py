"""One file of a source, ready to be read: its kind and encoding are known, its rows come from the reader for it."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from core.data.conversation import Row, Unreadable
from core.data.read import columns, document, lines, plain, table
from core.data.read.blob import Blob
from core.data.read.encoding import Encoded, find_encoding
from core.data.read.kinds import HEAD, kind_of
from core.data.read.notes import Notes
from core.data.read.sniff import json_kind
from core.data.read.text import DecodedText
from core.errors import DataError

Progress = Callable[[int], None]

_TEXT_READERS = {
    "jsonl": lines.read,
    "json": document.read,
    "csv": table.read,
    "tsv": table.read,
    "text": plain.read,
    "markdown": plain.read,
}
_TABLE_READERS = {"parquet": columns.read_parquet, "arrow": columns.read_arrow}
TABLES = _TABLE_READERS.keys()  # kinds whose letters need no encoding


@dataclass(frozen=True)
class Part:
    """A file, or a member of a .zip. `encoded` is None for the binary kinds. `evidence` says how that is known."""

    name: str
    kind: str
    bytes: int
    blob: Blob
    encoded: Encoded | None
    evidence: str

    def rows(self, notes: Notes, progress: Progress) -> Iterator[Row | Unreadable]:
        """Its rows in order. Raises DataError where it cannot be read on."""
        if self.encoded is None:
            return _TABLE_READERS[self.kind](self.blob, notes, progress)
        return _TEXT_READERS[self.kind](DecodedText(self.name, self.blob, self.encoded, self.kind), notes, progress)


def open_part(blob: Blob, encoding: str, notes: Notes, like: Collection[str] = ()) -> Part:
    """Look at the start of `blob`: its kind, its encoding, where not sure one of `like`, which files beside it are in.

    Raises DataError where it can be no dataset, and EncodingUnsure.
    """
    name = blob.name
    kind = kind_of(name, blob.inner, blob.head(HEAD))
    if kind in ("zip", "gz"):
        raise DataError(f"{name} is an archive inside an archive. Unpack it first.")
    if kind in _TABLE_READERS:
        return Part(name, kind, blob.size, blob, None, "its first bytes")
    encoded = find_encoding(blob, encoding, like)
    text = DecodedText(name, blob, encoded, kind)
    kind, evidence = json_kind(text)
    if kind in ("csv", "tsv"):
        evidence = table.dialect(text).evidence
    if encoded.guessed:
        notes.on_opening(
            "encoding-guessed",
            "note",
            f"{name} was read as {encoded.name}: {encoded.evidence}.",
            "If characters look wrong, set the encoding.",
        )
    evidence = "; ".join(part for part in (encoded.evidence, evidence) if part)
    return Part(name, kind, blob.size, blob, encoded, evidence)
