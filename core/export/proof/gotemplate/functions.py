"""The functions that a Go template of Ollama's may call: text/template's own, and Ollama's."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from core.export.proof.gotemplate.values import (
    GoError,
    equal,
    kind,
    marshalled,
    printed,
    to_bytes,
    to_text,
    truth,
    type_name,
)

Functions = dict[str, Callable[..., Any]]
# Go's own that no Modelfile needs: known to be there, and refused where they are called.
UNUSED = ("html", "js", "urlquery", "call", "toTypeScriptType")
# `and` and `or` look at no more than they need, so core/export/proof/gotemplate/evaluate.py has them.
LAZY = ("and", "or")
_VERB = re.compile(r"%(?:%|(-?)(\d*)([a-zA-Z]))")
WIDEST = 1000


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


def _print(*values: Any) -> str:
    """fmt.Sprint: a space between two where neither is a text."""
    parts = [""]
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            parts.append(" ")
        parts.append("<nil>" if value is None else printed(value))
    return "".join(parts)


def _printf(form: Any, *values: Any) -> str:
    """fmt.Sprintf, of %v, %s, %d, %q, %t and %%."""
    if not isinstance(form, str):
        raise GoError("printf is given no text to fill in")
    left = list(values)

    def filled(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        if not left:
            raise GoError(f"printf has no value for {found[0]}")
        text = _formatted(found[3], left.pop(0))
        width = int(found[2] or 0)
        if width > WIDEST:
            raise GoError(f"printf pads to {width} letters")
        return text.ljust(width) if found[1] else text.rjust(width)

    text = _VERB.sub(filled, form)
    if left:
        raise GoError("printf is given more values than it prints")
    if "%" in _VERB.sub("", form):
        raise GoError(f"printf has a form that is not known here: {form!r}")
    return text


def _formatted(verb: str, value: Any) -> str:
    fits: dict[str, type] = {"s": str, "q": str, "d": int, "t": bool}
    if verb == "v":
        return "<nil>" if value is None else printed(value)
    if verb not in fits or not isinstance(value, fits[verb]) or (verb == "d" and isinstance(value, bool)):
        raise GoError(f"printf writes a {type_name(value)} as %{verb}")
    text = printed(value)
    if verb == "q":
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'
    return text


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
        "print": _print,
        "println": lambda *values: " ".join("<nil>" if each is None else printed(each) for each in values) + "\n",
        "printf": _printf,
    }


def ollama(today: date | None = None) -> Functions:
    """Ollama's; its dates are `2026-11-30` whatever format they are asked for in. `today`: for tests."""
    now = today or date.today()
    return {
        "json": marshalled,
        "currentDate": lambda *_: now.isoformat(),
        "yesterdayDate": lambda *_: (now - timedelta(days=1)).isoformat(),
    }
