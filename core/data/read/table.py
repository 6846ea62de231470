"""CSV and TSV: the delimiter found with evidence, a row that does not fit its header unreadable with its line."""

import ast
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.data.conversation import Row, Unreadable
from core.data.read.blob import Progress
from core.data.read.jsons import is_too_deep, is_turns
from core.data.read.mojibake import is_garbled
from core.data.read.notes import Notes
from core.data.read.text import LONGEST, DecodedText
from core.errors import DataError

_SAMPLE = 2**18
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_NONE = "\x1f"  # parts nothing: where there is one column, commas are part of the text
_STRAY = "\ue00d"  # stands for a stray carriage return while the csv module, which stumbles over one, is at work
# Columns whose text is text even where it is JSON: somebody may want to learn to write it.
_TEXTS = {"text", "content", "instruction", "input", "output", "prompt", "completion", "question", "query"}
_TEXTS |= {"answer", "response", "reply", "chosen", "rejected"}


@dataclass(frozen=True)
class Dialect:
    """How cells are parted. `escape`: a backslash where quotes are written so. `skip`: lines before the header."""

    delimiter: str
    escape: str | None
    skip: int
    evidence: str

    def reader(self, lines: Iterator[str]) -> Any:
        """A csv reader of `lines`."""
        csv.field_size_limit(LONGEST)  # the module's own limit is for all of the process, and too small for a book
        return csv.reader(lines, delimiter=self.delimiter, escapechar=self.escape, strict=True)


def dialect(text: DecodedText) -> Dialect:
    """The dialect that gives most rows of the file's start as many cells as its header."""
    lines = text.sample(_SAMPLE).replace("\r\n", "\n").replace("\r", _STRAY).split("\n")
    lines = lines[:-1] if len(lines) > 1 and len("\n".join(lines)) > _SAMPLE // 8 else lines
    first = lines[0].strip().lower()
    if len(first) == 5 and first.startswith("sep="):  # Excel's own hint
        return Dialect(first[4], None, 1, f"its first line says {first!r}")
    order = "\t,;|" if text.kind == "tsv" else ",;\t|"
    escapes = (None, "\\") if any('\\"' in line for line in lines) else (None,)
    tried = [_try(lines, delimiter, escape) for escape in escapes for delimiter in order]
    share, best = max(tried, key=lambda each: each[0])
    return best if share > 0 else Dialect(_NONE, None, 0, "one column")


def _try(lines: list[str], delimiter: str, escape: str | None) -> tuple[float, Dialect]:
    """The share of rows that fit the header, 0 where there is only one column."""
    reader = Dialect(delimiter, escape, 0, "").reader(iter([line + "\n" for line in lines]))
    columns = fits = total = 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error:
            total += 1
            continue
        if cells is None:
            break
        if cells:
            columns = columns or len(cells)
            total += 1
            fits += len(cells) == columns
    evidence = f"cells parted by {_NAMES[delimiter]} in {fits:,} of the first {total:,} rows"
    return (fits / total if columns > 1 else 0.0), Dialect(delimiter, escape, 0, evidence)


def read(text: DecodedText, notes: Notes, progress: Progress) -> Iterator[Row | Unreadable]:
    """The rows of a table with a header. Raises DataError: no sure header, a quote that is never closed."""
    chosen = dialect(text)
    lines = _Lines(text, notes, progress, chosen.skip)
    reader = chosen.reader(iter(lines))
    names: list[str] | None = None
    while True:
        start = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _unreadable(text.name, start, lines.number, error)
            continue
        wrong = lines.wrong_from(start)
        if not cells or (len(cells) == 1 and names and len(names) > 1 and not cells[0].strip()):
            continue
        if names is None:
            names = _header(text.name, start, cells, wrong, notes)
        else:
            yield Unreadable(wrong) if wrong else _row(names, cells, start)


class _Lines:
    """The lines of a table as text, ending with a line feed; `number` is the last one's, counted from 1."""

    def __init__(self, text: DecodedText, notes: Notes, progress: Progress, skip: int) -> None:
        self._text, self._notes, self._progress, self._skip = text, notes, progress, skip
        self._wrong: dict[int, str] = {}
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        for raw in self._text.lines(self._progress):
            self.number += 1
            if self.number <= self._skip:
                continue
            line = self._decoded(raw)
            body = line.rstrip("\r\n")
            if "\r" in body:
                self._notes.mark("stray-return")
            if "\r" in line:
                line = body.replace("\r", _STRAY) + "\n"
            if is_garbled(line):
                self._notes.mark("mojibake")
            yield line

    def wrong_from(self, start: int) -> str:
        """What could not be decoded from line `start` on; empty where all could."""
        wrong = next((reason for number, reason in self._wrong.items() if number >= start), "")
        self._wrong.clear()
        return wrong

    def _decoded(self, raw: bytes) -> str:
        try:
            return raw.decode(self._text.codec, self._text.strictness)
        except UnicodeDecodeError as error:
            self._wrong[self.number] = f"line {self.number:,}: {self._text.not_letters(error)}"
            return raw.decode(self._text.codec, "backslashreplace")


def _unreadable(name: str, start: int, end: int, error: csv.Error) -> Unreadable:
    if "unexpected end" in str(error):
        raise DataError(f"{name}, line {start:,}: this row opens a quote and never closes it. Close it there.")
    if "larger than field limit" in str(error):
        raise DataError(f"{name}, line {start:,}: a cell is larger than {LONGEST // 2**20} MB. Is a quote left open?")
    where = f"line {start:,}" if end <= start else f"lines {start:,} to {end:,}"
    return Unreadable(f"{where}: a quote appears inside a quoted cell; write a quote inside text twice")


def _header(name: str, line: int, cells: list[str], wrong: str, notes: Notes) -> list[str]:
    """The columns' names. Raises DataError where two are the same, or one cannot be decoded."""
    if wrong:
        raise DataError(f"{name}, {wrong}")
    names = [cell.replace(_STRAY, "").strip() for cell in cells]
    names = [each or f"column {number}" for number, each in enumerate(names, start=1)]
    twice = next((each for each in names if names.count(each) > 1), None)
    if twice is not None:
        raise DataError(f"{name}, line {line}: two columns have the same name, {twice[:60]!r}. Rename one.")
    odd = next((each for each in names if _is_data(each)), None)
    if odd is not None:
        notes.on_reading(
            "header-is-data",
            "warning",
            f"The first line of {name} should hold the column names, but looks like a row: {odd[:60]!r}.",
            "Add a line of column names above it, such as prompt,completion.",
        )
    return names


def _is_data(name: str) -> bool:
    return len(name) > 60 or name.endswith((".", "!", "?", "。", "？", "！")) or name[:1] in "{[" or name.isdecimal()


def _row(names: list[str], cells: list[str], line: int) -> Row | Unreadable:
    while len(cells) > len(names) and not cells[-1]:
        cells.pop()
    if len(cells) != len(names):
        few = "text that contains the delimiter needs quotes" if len(cells) > len(names) else "some are missing"
        counted = "1 cell" if len(cells) == 1 else f"{len(cells):,} cells"
        return Unreadable(f"line {line:,}: has {counted} for {len(names):,} columns; {few}")
    return {name: _cell(name, cell) for name, cell in zip(names, cells, strict=True)}


def _cell(column: str, text: str) -> Any:
    """A cell's value: None where it is empty, what it holds where that is JSON of turns or tools, else its text."""
    if not text or text in ("NaN", "nan"):
        return None
    if _STRAY in text:
        text = text.strip(_STRAY).replace(_STRAY, "\n")
        if not text:
            return None
    if text[0] in "[{" and text.rstrip()[-1:] in "]}":
        value = _nested(text)
        if value is not None and column.lower() not in _TEXTS:
            return value
        if is_turns(value) or (isinstance(value, dict) and any(map(is_turns, value.values()))):
            return value
    return text


def _nested(text: str) -> Any:
    """The list or object that a cell holds, as JSON or as Python prints it; None where it is neither."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        return value if isinstance(value, dict | list) and not is_too_deep(text, value) else None
    return None
