"""Go's values as Python's, and how Go prints and compares them.

A nil interface is None, a string str, an integer int, a float64 float, a slice list (a nil one the empty tuple), a map
dict, a struct Struct. Lengths and places in a string count bytes.
"""

from dataclasses import dataclass
from typing import Any


class GoError(Exception):
    """A template that Go refuses, fails at, or that uses what is not known here; says which."""


@dataclass
class Struct:
    """A struct: its type's name, and its fields. `is_pointer`: Go holds a pointer to it, and in a list prints that."""

    type: str
    fields: dict[str, Any]
    is_pointer: bool = False


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
        raise GoError("it prints a number with a fraction")
    if isinstance(value, Struct):
        return "{" + " ".join(_shown(each) for each in value.fields.values()) + "}"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_shown(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        if any(isinstance(each, Struct) and each.is_pointer for each in value):
            raise GoError("it prints where messages lie in memory")
        return "[" + " ".join(_shown(each) for each in value) + "]"
    return str(value)


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
