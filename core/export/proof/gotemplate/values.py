"""Go's values as Python's, and how Go prints, compares and marshals them.

A nil interface is None, a string str, an integer int, a float64 float, a slice list (a nil one the empty tuple), a map
dict, a struct Struct. Lengths and places in a string count bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


class GoError(Exception):
    """A template that Go refuses, fails at, or that uses what is not known here; says which."""


@dataclass
class Struct:
    """A struct: its type's name, its fields, and for json.Marshal the name of each and whether empty ones are left out.

    `prints_json`: its String method marshals it. `is_pointer`: Go holds a pointer to it, and in a list prints that.
    """

    type: str
    fields: dict[str, Any]
    tags: dict[str, tuple[str, bool]]
    prints_json: bool = False
    is_pointer: bool = False


class JsonList(list[Any]):
    """A slice whose String method marshals it; `nil` where it is one."""

    nil = False


class JsonMap(dict[str, Any]):
    """A map whose String method marshals it, with `{}` for nil."""

    nil = False


class Ordered(dict[str, Any]):
    """A map that marshals in the order of insertion."""


class TypeNames(list[str]):
    """JSON Schema's `type`: one name or several, printed and marshalled as one where it is one."""


def to_bytes(text: str) -> bytes:
    """As Go holds it; a text that was cut within a letter keeps the odd bytes."""
    return text.encode(errors="surrogateescape")


def to_text(held: bytes) -> str:
    """`to_bytes` undone."""
    return held.decode(errors="surrogateescape")


def truth(value: Any) -> bool:
    """Whether `if` takes it for true: not the zero of its type, and not empty. Structs always are."""
    return True if isinstance(value, Struct) else bool(value)


def printed(value: Any) -> str:
    """As `{{ value }}` prints it."""
    return "<no value>" if value is None else _shown(value)


def _shown(value: Any) -> str:
    """As fmt's %v."""
    if value is None:
        return "<nil>"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return float_text(value, 6)
    if isinstance(value, JsonMap) and value.nil:
        return "{}"
    if isinstance(value, (JsonList, JsonMap)) or (isinstance(value, Struct) and value.prints_json):
        return marshalled(value)
    if isinstance(value, TypeNames):
        return "" if not value else value[0] if len(value) == 1 else f"[{' '.join(value)}]"
    if isinstance(value, Struct):
        return "{" + " ".join(_shown(each) for each in value.fields.values()) + "}"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_shown(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        if any(isinstance(each, Struct) and each.is_pointer for each in value):
            raise GoError("it prints where messages lie in memory")
        return "[" + " ".join(_shown(each) for each in value) + "]"
    return str(value)


def float_text(value: float, largest_exponent: int, smallest_exponent: int = -4) -> str:
    """The shortest digits that give it back, without an exponent where that lies between the two."""
    if math.isinf(value) or math.isnan(value):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(str(value), "NaN")
    digits, exponent = f"{value!r}", 0
    if value:
        exponent = int(f"{value:.16e}".split("e")[1])
    if not smallest_exponent <= exponent < largest_exponent:
        mantissa, _, power = (digits if "e" in digits else f"{value:.17g}").partition("e")
        if not power:
            shortest = next(f"{value:.{n}e}" for n in range(18) if float(f"{value:.{n}e}") == value)
            mantissa, _, power = shortest.partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(power):+03d}"
    if "e" in digits:
        places = max(0, 17 - exponent)
        return next((f"{value:.{n}f}" for n in range(places + 1) if float(f"{value:.{n}f}") == value), digits)
    return digits.removesuffix(".0")


def marshalled(value: Any) -> str:
    """As encoding/json marshals it: no spaces, maps by their keys, and `<`, `>` and `&` escaped."""
    if value is None or value == () or (isinstance(value, (JsonList, JsonMap)) and value.nil):
        return "null"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = float_text(value, 21, -6)
        return text.replace("e-0", "e-") if "e-0" in text else text
    if isinstance(value, TypeNames):
        return _quoted(value[0]) if len(value) == 1 else "[" + ",".join(map(_quoted, value)) + "]"
    if isinstance(value, Struct):
        named = [(*value.tags.get(key, (key, False)), each) for key, each in value.fields.items()]
        pairs = [f"{_quoted(name)}:{marshalled(each)}" for name, sparse, each in named if not sparse or truth(each)]
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, dict):
        keys = list(value) if isinstance(value, Ordered) else sorted(value)
        return "{" + ",".join(f"{_quoted(key)}:{marshalled(value[key])}" for key in keys) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(marshalled, value)) + "]"
    return str(value)


_JSON = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def _quoted(text: str) -> str:
    return '"' + "".join(_JSON.get(letter) or _letter(letter) for letter in text) + '"'


def _letter(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if letter in "<>&\u2028\u2029" or letter < " " else letter


def kind(value: Any) -> str:
    """What Go compares it as. Raises GoError for what it does not compare."""
    for types, name in ((bool, "bool"), (int, "int"), (float, "float"), (str, "string")):
        if isinstance(value, types):
            return name
    raise GoError(f"a {type_name(value)} is compared")


def equal(one: Any, other: Any) -> bool:
    """Raises GoError for values of different kinds, and for such as have no equality."""
    if one is None or other is None:
        return one is None and other is None
    first, second = kind(one), kind(other)
    if first != second:
        raise GoError(f"a {first} is compared with a {second}")
    return bool(one == other)


def type_name(value: Any) -> str:
    """For a person."""
    if isinstance(value, Struct):
        return value.type
    if value is None:
        return "nil"
    if isinstance(value, (list, tuple)):
        return "slice"
    return "map" if isinstance(value, dict) else type(value).__name__
