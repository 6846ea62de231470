"""JSON that is one document: an array of rows, an object that holds one, or objects one after another."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from core.data.conversation import Row, Unreadable
from core.data.read.blob import Progress
from core.data.read.jsons import as_row, is_only_turn, is_turn, kind_name
from core.data.read.notes import Notes
from core.data.read.splits import is_of_splits
from core.data.read.text import DecodedText
from core.data.read.window import Window
from core.errors import DataError

_OF_TURNS = {"messages", "conversations", "conversation", "turns", "dialog", "dialogue", "chat", "prompt", "completion"}
_OF_TURNS |= {"chosen", "rejected"}
_SINGLE = ('"', "-", *"0123456789", "true", "false", "null", "NaN")  # a value that is no array nor object begins so
LONGEST_CONVERSATION = 10_000  # turns


def read(text: DecodedText, notes: Notes, progress: Progress) -> Iterator[Row | Unreadable]:
    """The rows of a JSON file. Raises DataError, with line and column, where it is broken or its rows are not sure."""
    window = Window(text, notes, progress)
    first = window.peek()
    if first == "[":
        yield from _array(text.name, window)
        if window.peek():
            raise DataError(
                f"{text.name}, line {window.line:,}: there is more after the end of the array. Put all rows into one "
                "array."
            )
    elif first == "{":
        keys = _rows_within(text, Window(text, Notes()))
        yield from _arrays_under(keys, text.name, window, notes) if keys else _objects(window)
    elif not window.start().startswith(_SINGLE):
        raise DataError(
            f"{text.name}, line {window.line:,}: begins with {window.start()!r}, so it is not JSON. Use the suffix "
            f".csv for a table and .txt for plain text."
        )
    else:
        kind = kind_name(window.value())
        raise DataError(f"{text.name} contains a single value, {kind}, not rows. Put the rows into an array.")


def _items(window: Window) -> Iterator[tuple[int, Any]]:
    """The values of the array that begins here, each with its line."""
    window.expect("[")
    if window.take("]"):
        return
    while True:
        yield window.line, window.value()
        if window.take("]"):
            return
        window.expect(",")
        if window.peek() == "]":
            raise window.trailing_comma()


def _array(name: str, window: Window) -> Iterator[Row | Unreadable]:
    """The rows of an array; an array of turns is one row, the conversation."""
    items = _items(window)
    first = next(items, None)
    if first is None:
        return
    _, value = first
    if not is_only_turn(value):
        yield from (as_row(each, f"line {line:,}") for line, each in chain([first], items))
        return
    turns = [value]
    for _, turn in items:
        turns.append(turn)
        if len(turns) > LONGEST_CONVERSATION:
            raise DataError(
                f"{name} is one list of turns, too long for one conversation. Put each conversation into its own list."
            )
    yield {"messages" if "role" in value else "conversations": turns}


def _objects(window: Window) -> Iterator[Row | Unreadable]:
    """Objects one after another, each a row."""
    while window.peek():
        line = window.line
        yield as_row(window.value(), f"line {line:,}")


def _arrays_under(keys: list[str], name: str, window: Window, notes: Notes) -> Iterator[Row | Unreadable]:
    """The rows of the arrays under `keys` in the object that begins here; of several, each is a split."""
    for found in _keys(window):
        if found in keys and window.peek() == "[":
            notes.split = found if len(keys) > 1 else None
            yield from _array(name, window)
        else:
            window.value()


def _keys(window: Window) -> Iterator[str]:
    """The names in the object that begins here; whoever asks for the next has read this one's value."""
    window.expect("{")
    if window.take("}"):
        return
    while True:
        if window.peek() != '"':
            window.value()  # it raises for single quotes, comments and what else is no name
            raise window.trailing_comma()
        key = window.value()
        window.expect(":")
        yield key
        if window.take("}"):
            return
        window.expect(",")
        if window.peek() == "}":
            raise window.trailing_comma()


def _rows_within(text: DecodedText, window: Window) -> list[str]:
    """The names of the arrays that hold the rows; none where each outermost object is a row itself."""
    firsts: dict[str, Any] = {}
    for key in _keys(window):
        if window.peek() != "[":
            window.value()
            continue
        for _, item in _items(window):
            firsts.setdefault(key, item)
    if window.peek():  # more objects follow
        return []
    return _choose(text.name, firsts)


def _choose(name: str, firsts: dict[str, Any]) -> list[str]:
    """Which array holds the rows, by the first item of each; several only where they are splits.

    None where they are parts of one row.
    """
    if any(is_only_turn(item) or (key in _OF_TURNS and is_turn(item)) for key, item in firsts.items()):
        return []
    of_objects = [key for key, item in firsts.items() if isinstance(item, dict | list)]
    if len(of_objects) == 1 or is_of_splits(of_objects):
        return of_objects
    if len(firsts) > 1:
        names = ", ".join(list(firsts)[:12])
        raise DataError(f"{name} contains several arrays: {names}. Keep the one with the rows, or save each as a file.")
    return []
