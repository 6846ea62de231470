"""One file of a source, ready to be read: its kind and encoding are known, its rows come from the reader for it."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from core.data.conversation import Row, Unreadable
from core.data.read import columns, document, lines, plain, table
from core.data.read.blob import Blob, Progress
from core.data.read.encoding import Encoded, find_encoding
from core.data.read.jsons import is_turn
from core.data.read.kinds import HEAD, kind_of
from core.data.read.notes import Notes
from core.data.read.text import DecodedText
from core.errors import DataError

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
_SAMPLE = 2**21
_LINES = 50

_BROKEN = object()


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
    kind, evidence = _json_kind(text)
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


def _json_kind(text: DecodedText) -> tuple[str, str]:
    """The kind that the content shows, and the evidence: `text.kind` itself unless it is JSON."""
    sample = text.sample(_SAMPLE).lstrip("\ufeff \t\r\n")
    if text.kind in ("json", "jsonl"):
        return ("jsonl", "one row per line") if _is_lines(sample) else ("json", "one document")
    if sample[:1] == "{" and _is_lines(sample) and isinstance(_parsed(sample.partition("\n")[0]), dict):
        return "jsonl", "one JSON object per line, despite its name"
    if sample[:1] == "[" and isinstance(_first_item(sample, 1), dict):
        return "json", "a JSON array, despite its name"
    return text.kind, ""


def _is_lines(sample: str) -> bool:
    """Whether each line is a row: the first is whole and another follows, or it is broken but others are whole."""
    first, _, rest = sample.partition("\n")
    if not rest.strip():
        return False
    value = _parsed(first)
    if value is not _BROKEN:  # an array of rows is a document, one of turns a row
        of_rows = isinstance(value, list) and bool(value) and isinstance(value[0], dict) and not is_turn(value[0])
        return not of_rows
    if sample[:1] == "[" or _first_item(sample, 0) is not None:
        return False
    others = rest.split("\n", _LINES)[:_LINES]
    return any(line[:1] == "{" and isinstance(_parsed(line), dict) for line in others)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _BROKEN


def _first_item(sample: str, start: int) -> Any:
    """The first value in `sample` from `start` on, over as many lines as it takes; None where it is not whole."""
    start = len(sample) - len(sample[start:].lstrip())
    try:
        return json.JSONDecoder().raw_decode(sample, start)[0]
    except (ValueError, RecursionError):
        return None
