"""One row on its way to a conversation: what is known of it so far, and the reason where it cannot be used."""

import json
import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from core.data.conversation import Message, Row

SYSTEM_NAMES = ("system", "system_prompt", "system_message", "system_instruction", "systeminstruction")

# What an unused key is taken for: what the row is about (the answer, the speaker, the label); something to read; or a
# detail such as an id.
Worth = Literal["unused-answer", "unused-text", "unused-detail"]

# Values of any size and depth are shown without being written out.
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxlist, _BRIEF.maxdict, _BRIEF.maxstring, _BRIEF.maxlong = 4, 2, 4, 60, 40


class Unusable(Exception):
    """Why a row cannot be used, as the end of a sentence about the row. `code` names the finding that counts it."""

    def __init__(self, reason: str, code: str | None = None) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(slots=True)
class Reading:
    """What a layout has read from one row: messages or text, and the codes of findings that it gives cause for.

    `roles` says what each speaker's name (in lower case) means; `weight` is the row's own. `used` are the plain names
    of the columns that were read; `left` what stands deeper and was not, by its path, with the values there. `named`
    are findings that name something: for each code the names. `unused` is known at the end (unused.py).
    """

    roles: Mapping[str, str]
    messages: list[Message] = field(default_factory=list)
    tools: list[dict[str, Any]] | None = None
    tools_path: str = ""
    text: str | None = None
    weight: float = 1.0
    notes: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    left: dict[str, list[Any]] = field(default_factory=dict)
    named: dict[str, set[str]] = field(default_factory=dict)
    unused: dict[str, Worth] = field(default_factory=dict)

    def name(self, code: str, name: str) -> None:
        """Note a finding that names something."""
        self.named.setdefault(code, set()).add(name)


@dataclass(frozen=True)
class DatasetLayout:
    """One way to lay out a row. Both functions get it with plain column names.

    `name` is what data.format calls it, `label` what the screen does, `columns` its usual columns in a few words.
    `sign` says in words how a row shows this layout, or None; it never raises. `read` fills a Reading or raises
    Unusable. `takes_precedence` over the others where its rows show another layout as well.
    """

    name: str
    label: str
    sign: Callable[[Row], str | None]
    read: Callable[[Row, Reading], None]
    columns: str = ""
    takes_precedence: bool = False


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """A column's name as the layouts know it: 'System Prompt' is 'system_prompt'."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def plain_row(row: Row) -> Row:
    """The row with plain column names; where two become the same, one that is filled wins."""
    plain: Row = {}
    for name, value in row.items():
        key = plain_name(name)
        if key not in plain or missing(plain[key]):
            plain[key] = value
    return plain


def missing(value: Any) -> bool:
    """Whether there is no value: null, or the NaN that tables have in empty cells."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def blank(text: str) -> bool:
    """Whether there is nothing to read in it but white space."""
    return not text or text.isspace()


def first_filled(row: Row, names: tuple[str, ...]) -> str | None:
    """The first of these columns that the row has a value in."""
    return next((name for name in names if not missing(row.get(name))), None)


def kind(value: Any) -> str:
    """What a value is, in words."""
    if missing(value):
        return "empty"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else "something else"


def from_json(text: str, what: str) -> Any:
    """The value that a JSON text stands for. Raises Unusable."""
    try:
        return json.loads(text)
    except ValueError:
        raise Unusable(f"{what} cannot be read as JSON") from None


def short(value: Any, limit: int = 60) -> str:
    """A value as one short line, for a person to recognise it."""
    text = value[: 4 * limit] if isinstance(value, str) else _BRIEF.repr(value)
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
