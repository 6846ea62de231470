"""The functions of text/template's and Ollama's that Nibble's Modelfiles call. Lengths and places count bytes."""

from collections.abc import Callable
from datetime import date
from typing import Any

from core.export.proof.gotemplate.lexer import GoError

Functions = dict[str, Callable[..., Any]]
# `and` and `or` look at no more than they need, so core/export/proof/gotemplate/evaluate.py has them.
LAZY = ("and", "or")


def to_bytes(text: str) -> bytes:
    """As Go holds it; a text that was cut within a letter keeps the odd bytes."""
    return text.encode(errors="surrogateescape")


def _held(value: Any, what: str) -> Any:
    """What has a length and places."""
    if not isinstance(value, (str, list)):
        raise GoError(f"a {type(value).__name__} {what}")
    return to_bytes(value) if isinstance(value, str) else value


def _index(value: Any, place: Any) -> Any:
    held = _held(value, "is indexed")
    return held[_place(place, len(held) - 1)]


def _place(place: Any, last: int) -> int:
    if not isinstance(place, int) or isinstance(place, bool):
        raise GoError(f"{place!r} is used as a place")
    if not 0 <= place <= last:
        raise GoError(f"the place {place} is out of range")
    return place


def _slice(value: Any, start: Any, end: Any = None) -> Any:
    held = _held(value, "is sliced")
    start = _place(start, len(held))
    end = len(held) if end is None else _place(end, len(held))
    if start > end:
        raise GoError(f"a slice ends at {end}, before its start {start}")
    return held[start:end].decode(errors="surrogateescape") if isinstance(value, str) else held[start:end]


def _eq(one: Any, other: Any) -> bool:
    if type(one) is not type(other) or not isinstance(one, (bool, int, str)):
        raise GoError(f"a {type(one).__name__} is compared with a {type(other).__name__}")
    return bool(one == other)


def _lt(one: Any, other: Any) -> bool:
    if type(one) is not int or type(other) is not int:
        raise GoError(f"a {type(one).__name__} is ordered with a {type(other).__name__}")
    return one < other


def ollama(today: date | None = None) -> Functions:
    """All of them; Ollama's date is `2026-11-30` whatever format it is asked for in. `today`: for tests."""
    now = today or date.today()
    return {
        "eq": _eq,
        "lt": _lt,
        "gt": lambda one, other: _lt(other, one),
        "not": lambda value: not value,
        "len": lambda value: len(_held(value, "has no length")),
        "index": _index,
        "slice": _slice,
        "currentDate": lambda: now.isoformat(),
    }
