"""The front door of the data: a path and settings in, every row validated, conversations out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from core.data.conversation import Conversations, Row, Unreadable
from core.data.formats.convert import convert
from core.data.formats.recognise import Recognised, recognise_layout
from core.data.named_splits import Ranges, Splitter
from core.data.read import FileInfo, open_source
from core.data.read.splits import SplitRow
from core.data.row_groups import Gatherer
from core.data.spill import SpilledConversations
from core.errors import DataError
from core.settings import DataSettings

# So many rows say how a file is laid out.
_LOOKED_AT = 1000
# Kinds of file in which all rows have the same fields, those that a row lacks filled with null.
_COLUMNAR = {"parquet", "arrow"}


@dataclass(frozen=True)
class Loaded(Conversations):
    """Conversations, and what is known of where they came from. `bytes` is the size on disk.

    Where the data names its splits, `splits` are rows for each use, and `held_out` the rows that are not trained on.
    """

    name: str = ""
    bytes: int = 0
    files: tuple[FileInfo, ...] = ()
    columns: tuple[dict[str, str], ...] = ()
    alternatives: tuple[dict[str, str], ...] = ()
    splits: dict[str, int] | None = None
    held_out: Ranges = field(default_factory=Ranges)


def size_of(path: Path) -> int:
    """Bytes on disk of a file, or of all files below a folder: what `progress` of `load` goes up to."""
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


def load(path: Path, settings: DataSettings, progress: Callable[[int], None] | None = None) -> Loaded:
    """Every row of the file or folder at `path`, read, recognised, converted and validated.

    `progress` gets the bytes read so far, now and then. Conversations of a large file lie on disk. Raises DataError
    where the file cannot be read, no layout fits, or no row is usable.
    """
    source = open_source(path, settings.encoding)
    splitter = Splitter(source, settings)
    split_rows: Iterator[SplitRow] = source.split_rows(progress)
    if any(info.kind in _COLUMNAR for info in source.files):
        split_rows = ((_without_fillers(row), use, name) for row, use, name in split_rows)
    looked_at, split_rows = _first(split_rows)
    splitter.look_at(row for row, _, _ in looked_at)
    gatherer = Gatherer(settings)
    first, split_rows = _first(gatherer.rows(splitter.assigned(split_rows)))
    rows = splitter.rows(split_rows)
    recognised = _recognise([row for row, _, _ in first], settings, source.name)
    spilled = SpilledConversations()
    found = convert(rows, recognised, settings, source.name, spilled)
    if splitter.held_out.holds(spilled.rows).all():
        raise DataError(
            f"{source.name}: all usable rows are for validation, so none are left to train on. Fix the others, or "
            f"set data.named_splits to ignore."
        )
    evidence = found.evidence
    if found.rows > _LOOKED_AT:
        evidence = evidence.replace(f" of {_LOOKED_AT:,} rows", f" of the first {_LOOKED_AT:,} rows")
    return Loaded(
        found.format,
        evidence,
        found.rows,
        found.usable,
        found.dropped,
        [*source.findings(), *splitter.findings(), *gatherer.findings(), *found.findings],
        name=source.name,
        bytes=source.bytes,
        files=tuple(source.files),
        columns=tuple(recognised.columns),
        alternatives=tuple(recognised.alternatives),
        splits=splitter.counts(),
        held_out=splitter.held_out,
    )


def _recognise(first: list[Row | Unreadable], settings: DataSettings, file: str) -> Recognised:
    readable = [row for row in first if not isinstance(row, Unreadable)]
    if not first:
        raise DataError(f"{file} contains no rows. It should have one conversation per row.")
    if not readable:
        reasons = [row.reason for row in first if isinstance(row, Unreadable)]
        raise DataError(f"{file}: none of its {len(first):,} rows can be read. Row 1: {reasons[0]}.")
    return recognise_layout(readable, settings, file)


def _first(split_rows: Iterator[SplitRow]) -> tuple[list[SplitRow], Iterator[SplitRow]]:
    """Those up to the last one that is looked at, and all of them."""
    first: list[SplitRow] = []
    readable = 0
    while readable < _LOOKED_AT:
        one = next(split_rows, None)
        if one is None:
            break
        first.append(one)
        readable += not isinstance(one[0], Unreadable)
    return first, chain(first, split_rows)


def _without_fillers(row: Row | Unreadable) -> Row | Unreadable:
    """The row without the nulls that stand for fields of other rows, down into turns, tools and arguments."""
    return row if isinstance(row, Unreadable) else {key: _unfilled(value) for key, value in row.items()}


def _unfilled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unfilled(part) for key, part in value.items() if part is not None}
    return [_unfilled(part) for part in value] if isinstance(value, list) else value
