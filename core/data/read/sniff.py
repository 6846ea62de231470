"""Whether a text file holds JSON, and whether a row a line or as one document; its suffix often says it wrong."""

import json
from typing import Any

from core.data.read.jsons import is_turn
from core.data.read.text import DecodedText

_SAMPLE = 2**21
_LINES = 50
_BY_LINE = "one row per line"


def json_kind(text: DecodedText) -> tuple[str, str]:
    """The kind that the content shows, and the evidence: `text.kind` itself unless it is JSON."""
    sample = text.sample(_SAMPLE).lstrip("\ufeff \t\r\n")
    if text.kind in ("json", "jsonl"):
        return ("jsonl", _BY_LINE) if _is_lines(sample) else ("json", "one document")
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
    if value is not _BROKEN:
        return not _is_array_of_rows(value)
    if sample[:1] == "[" or _first_item(sample, 0) is not None:
        return False
    others = rest.split("\n", _LINES)[:_LINES]
    return any(line[:1] == "{" and isinstance(_parsed(line), dict) for line in others)


def _is_array_of_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and not is_turn(value[0])


_BROKEN = object()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _BROKEN


def _first_item(sample: str, start: int) -> Any:
    """The first value in `sample` from `start` on, over as many lines as it takes; None where it is not whole."""
    start += len(sample) - start - len(sample[start:].lstrip())
    try:
        return json.JSONDecoder().raw_decode(sample, start)[0]
    except (ValueError, RecursionError):
        return None
