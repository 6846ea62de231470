"""A file to rows: json, jsonl, csv and tsv. Every refusal says the file, the line, and what to do."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from core.errors import DataError

Row = dict[str, Any]
SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")


def read_rows(path: Path) -> list[Row]:
    """All rows of the file at `path`, in order; a row that is no object becomes `{}`.

    Raises DataError: missing, empty, not text, broken JSON (with the line), no rows.
    """
    if path.is_dir():
        raise DataError(f"{path.name} is a folder. Give one file: {', '.join(SUFFIXES)}.")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path.name} is not a kind of file that can be read. Known: {', '.join(SUFFIXES)}.")
    text = _text(path)
    if not text.strip():
        raise DataError(f"{path.name} is empty. It should hold one conversation a row.")
    rows = (_read_table if path.suffix.lower() in (".csv", ".tsv") else _read_json)(path, text)
    if not rows:
        raise DataError(f"{path.name} holds no rows. It should hold one conversation a row.")
    return rows


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"There is no file {path}. Check the path, or upload it again.") from None
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}.") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif b"\0" in raw:
        raise DataError(f"{path.name} is not a text file, whatever its name says. Save it as JSON, JSONL or CSV.")
    else:
        encoding = "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(f"{path.name}, line {line}: not readable as UTF-8. Save the file as UTF-8.") from None


def _read_json(path: Path, text: str) -> list[Row]:
    start = text.lstrip()[0]
    if path.suffix.lower() == ".jsonl" or (start == "{" and _is_lines(text)):
        return _read_lines(path, text)
    value = _parse(path, text, first_line=1)
    if isinstance(value, dict):
        value = _array_within(path, value)
    if not isinstance(value, list):
        raise DataError(f"{path.name} holds a single {type(value).__name__}, not rows. Put the rows into an array.")
    return [row if isinstance(row, dict) else {} for row in value]


def _is_lines(text: str) -> bool:
    """Whether a file named .json is really JSONL: its first line is a whole object, and another follows."""
    first, _, rest = text.strip().partition("\n")
    if not rest.strip():
        return False
    try:
        return isinstance(json.loads(first), dict)
    except json.JSONDecodeError:
        return False


def _array_within(path: Path, value: Row) -> Any:
    arrays = [key for key, inner in value.items() if isinstance(inner, list) and inner]
    if "messages" in arrays or "conversations" in arrays:
        return [value]
    if len(arrays) == 1:
        return value[arrays[0]]
    if not arrays:
        return [value]
    raise DataError(f"{path.name} holds several arrays: {', '.join(arrays)}. Keep the one with the rows.")


def _read_lines(path: Path, text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            row = _parse(path, line, first_line=number)
            rows.append(row if isinstance(row, dict) else {})
    return rows


def _parse(path: Path, text: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        where = f"{path.name}, line {line}, column {error.colno}"
        raise DataError(f"{where}: this is not valid JSON ({error.msg}). Mend that line, or export again.") from None
    except RecursionError:
        raise DataError(f"{path.name}, line {first_line}: nested too deeply to be a conversation.") from None


def _read_table(path: Path, text: str) -> list[Row]:
    csv.field_size_limit(2**31 - 1)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [str(name).strip() for name in reader.fieldnames or []]
        if len(set(names)) < len(names):
            raise DataError(f"{path.name}, line 1: two columns have the same name. Rename one.")
        reader.fieldnames = names
        return [{key: value for key, value in row.items() if key is not None} for row in reader]
    except csv.Error as error:
        raise DataError(f"{path.name}, line {reader.line_num}: {error}. Check the quotes on that line.") from None
