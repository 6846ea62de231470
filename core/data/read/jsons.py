"""JSON as people write it: the decoder that notices what others pass over, and what is wrong in plain words."""

import json
import math
from typing import Any

from core.data.conversation import Row, Unreadable
from core.data.read.notes import Notes

DEEPEST = 100  # lists and objects within each other; a conversation with tool calls has about 10

_NAMES = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", type(None): "null"}
_TEXT_OF_TURN = {"content", "value", "text", "message", "parts", "tool_calls", "function_call"}
_BESIDE_TEXT = {
    "role",
    "from",
    "name",
    "weight",
    "train",
    "loss_weight",
    "tool_call_id",
    "reasoning_content",
    "thinking",
}


def make_decoder(notes: Notes) -> json.JSONDecoder:
    """A decoder that marks repeated names and values that are no numbers, and reads the latter as None."""

    def as_object(pairs: list[tuple[str, Any]]) -> Row:
        row = dict(pairs)
        if len(row) != len(pairs):
            notes.mark("duplicate-key")
        return row

    def constant(name: str) -> None:
        notes.mark("not-a-number")

    def real(digits: str) -> float | None:
        number = float(digits)
        if math.isfinite(number):
            return number
        constant(digits)
        return None

    return json.JSONDecoder(object_pairs_hook=as_object, parse_constant=constant, parse_float=real)


def as_row(value: Any, where: str) -> Row | Unreadable:
    """`value` as a row: an object; or a list of turns, as an object that holds it. Else Unreadable, at `where`."""
    if isinstance(value, dict):
        return value
    if is_turns(value):
        return {"messages" if "role" in value[0] else "conversations": value}
    return Unreadable(f"{where}: is {kind_name(value)}, not an object with names and values")


def is_turns(value: Any) -> bool:
    """Whether `value` is the list of turns of one conversation."""
    return isinstance(value, list) and bool(value) and all(map(is_turn, value))


def is_turn(value: Any) -> bool:
    """Whether `value` may be one turn: it says who speaks, and what."""
    if not isinstance(value, dict):
        return False
    return ("role" in value or "from" in value) and not _TEXT_OF_TURN.isdisjoint(value)


def is_only_turn(value: Any) -> bool:
    """Whether `value` is a turn and nothing more: a row of a table of turns has an id or the like beside it."""
    return is_turn(value) and value.keys() <= _TEXT_OF_TURN | _BESIDE_TEXT


def kind_name(value: Any) -> str:
    """What `value` is, for a person."""
    return _NAMES.get(type(value), "an object")


def is_too_deep(text: str, value: Any) -> bool:
    """Whether `value`, read from `text`, holds more than `DEEPEST` levels; later rooms walk it level by level."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return bool(level)


def explain(text: str, error: json.JSONDecodeError) -> str:
    """What is wrong at the error's place in `text`, and what to do."""
    here = text[error.pos : error.pos + 12]
    before = text[max(error.pos - 50, 0) : error.pos].rstrip()
    if here[:1] in ("]", "}") and before.endswith(",") or error.msg.startswith("Illegal trailing comma"):
        return "there is a comma before the closing bracket; remove it"
    if here.startswith("'"):
        return "names and text are in single quotes; JSON needs double quotes"
    if here.startswith(","):
        return "there is a comma in place of a row; remove it, or put all rows into one array"
    if here.startswith("\0"):
        return "there are zero bytes in place of a row, as after a crash; remove them"
    if here.startswith(("None", "True", "False")):
        return "Python's None, True or False; JSON uses null, true, false"
    if here.startswith(("//", "/*", "#")):
        return "a comment, which JSON does not allow; remove it"
    if error.msg.startswith("Invalid control character"):
        return r"a line break or tab within text; JSON writes it as \n or \t"
    if error.msg.startswith("Invalid \\"):
        return r"a backslash without an escape; JSON writes a backslash as \\"
    if error.msg.startswith("Unterminated string"):
        return 'a quote that is never closed; a quote within text is written \\"'
    if error.msg.startswith("Expecting ','"):
        return 'a comma is missing here, or a quote within text is not written \\"'
    if error.msg.startswith("Extra data"):
        return "there is more after the end of the row; put each row on its own line"
    if error.msg.startswith("Expecting property name"):
        return "a name in double quotes is expected here"
    if error.msg.startswith("Expecting ':'"):
        return "a colon is expected here, between a name and its value"
    shown = here.split("\n")[0].strip()
    return f"a value is expected here, not {shown!r}" if here.strip() else "a value is missing here"
