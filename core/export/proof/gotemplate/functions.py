"""The functions that a Go template of Ollama's may call: text/template's own, and Ollama's."""

from collections.abc import Callable
from datetime import date
from typing import Any

from core.export.proof.gotemplate.values import (
    GoError,
    equal,
    kind,
    to_bytes,
    to_text,
    truth,
    type_name,
)

Functions = dict[str, Callable[..., Any]]
# Go's and Ollama's that no Modelfile of Nibble's calls: known to be there, and refused where they are called.
UNUSED = ("html", "js", "urlquery", "call", "print", "println", "printf", "json", "toTypeScriptType", "yesterdayDate")
# `and` and `or` look at no more than they need, so core/export/proof/gotemplate/evaluate.py has them.
LAZY = ("and", "or")


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(to_bytes(value))
    if isinstance(value, (list, tuple, dict)):
        return len(value)
    raise GoError(f"the length of a {type_name(value)} is asked for")


def _index(value: Any, *places: Any) -> Any:
    for place in places:
        if isinstance(value, dict):
            value = value.get(place)
        elif isinstance(value, str):
            value = to_bytes(value)[_place(place, len(to_bytes(value)))]
        elif isinstance(value, (list, tuple)):
            value = value[_place(place, len(value))]
        else:
            raise GoError(f"a {type_name(value)} is indexed")
    return value


def _place(place: Any, length: int, last: int = -1) -> int:
    if not isinstance(place, int) or isinstance(place, bool):
        raise GoError(f"{place!r} is used as a place")
    if not 0 <= place <= length + last:
        raise GoError(f"the place {place} is out of range")
    return place


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, (str, list, tuple)):
        raise GoError(f"a {type_name(value)} is sliced")
    held = to_bytes(value) if isinstance(value, str) else value
    if len(bounds) > 2:
        raise GoError("a slice has three bounds")
    start, end = (*[_place(bound, len(held), 0) for bound in bounds], *(0, len(held))[len(bounds) :])
    if start > end:
        raise GoError(f"a slice ends at {end}, before its start {start}")
    part = held[start:end]
    return to_text(part) if isinstance(part, bytes) else part


def _eq(one: Any, *others: Any) -> bool:
    if not others:
        raise GoError("eq is given one value")
    return any(equal(one, other) for other in others)


def _ne(one: Any, other: Any) -> bool:
    return not equal(one, other)


def _lt(one: Any, other: Any) -> bool:
    first, second = kind(one), kind(other)
    if first != second or first == "bool":
        raise GoError(f"a {first} is ordered with a {second}")
    return bool(to_bytes(one) < to_bytes(other) if isinstance(one, str) else one < other)


def _le(one: Any, other: Any) -> bool:
    return _lt(one, other) or equal(one, other)


def builtins() -> Functions:
    """text/template's own."""
    return {
        "eq": _eq,
        "ne": _ne,
        "lt": _lt,
        "le": _le,
        "gt": lambda one, other: not _le(one, other),
        "ge": lambda one, other: not _lt(one, other),
        "not": lambda value: not truth(value),
        "len": _len,
        "index": _index,
        "slice": _slice,
    }


def ollama(today: date | None = None) -> Functions:
    """Ollama's; its date is `2026-11-30` whatever format it is asked for in. `today`: for tests."""
    now = today or date.today()
    return {"currentDate": lambda *_: now.isoformat()}
