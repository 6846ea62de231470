"""What rendering one chat template may spend: steps, characters and seconds, in proportion to what it is given."""

import re
import time
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any

from jinja2.sandbox import SecurityError
from jinja2.utils import Namespace

# What a rendering may spend, and how much more for each character that it is given.
STEPS, CHARS, SECONDS = 1_000_000, 16_000_000, 5.0
STEPS_A_CHAR, CHARS_A_CHAR = 10, 100
_VIEWS = (KeysView, ValuesView, ItemsView)
_LONGEST_NUMBER = 4096
# A width or precision of four digits or one that is taken from the arguments, in the two ways to format a text.
_WIDE_PERCENT = re.compile(r"%(\([^)]*\))?[-#0 +]*(\d{4,}|\*|\d*\.(\d{4,}|\*))")
_LONGEST_FORMAT = 2000
_WIDE_BRACES = re.compile(r"\{[^{}]*(\{|:[^{}]*\d{4,})")


class TooMuch(SecurityError):
    """A template that works or writes without end; said as what the template refuses."""


class TemplateLimits:
    """What one rendering has spent, and may spend: steps, characters, seconds."""

    def __init__(self, given: Any = None) -> None:
        self._given = given
        self._steps = self._chars = 0
        self._most_steps, self._most_chars = STEPS, CHARS
        self._until = time.monotonic() + SECONDS
        self._look_at = 0

    def step(self, count: int = 1) -> None:
        """So much work more. Raises TooMuch."""
        self._steps += count
        if self._steps > self._most_steps and not self._more():
            raise TooMuch("it never ends")
        if self._steps >= self._look_at:
            self._look_at = self._steps + 100
            if time.monotonic() > self._until:
                raise TooMuch(f"it is not finished after {SECONDS:.0f} seconds")

    def write(self, chars: int) -> None:
        """So many characters more, before they are made where that can be known. Raises TooMuch."""
        self._chars += chars
        if self._chars > self._most_chars and not self._more():
            raise TooMuch("its output never ends")

    def made(self, value: Any) -> Any:
        """`value`, a result: texts count by their length, lists by all that is in them."""
        if isinstance(value, str):
            self.write(len(value))
        elif isinstance(value, (list, tuple, dict)):
            for _ in leaves(value):
                self.step()
        return value

    def printed(self, value: Any) -> Any:
        """`value`, about to become text: a list is written out, each part as often as it stands in it."""
        if isinstance(value, (list, tuple, dict, *_VIEWS, Namespace)):
            for leaf in leaves(value):
                if isinstance(leaf, Namespace):
                    raise TooMuch("it prints a namespace")
                self.step()
                self.write(len(leaf) + 8 if isinstance(leaf, str) else 8)
        return value

    def _more(self) -> bool:
        """Whether what was given allows for what has been spent; looked at only once it matters."""
        given, self._given = self._given, None
        if given is None:
            return False
        size = sum(len(leaf) if isinstance(leaf, str) else 1 for leaf in leaves(given))
        self._most_steps += STEPS_A_CHAR * size
        self._most_chars += CHARS_A_CHAR * size
        return self._steps <= self._most_steps and self._chars <= self._most_chars


def leaves(value: Any) -> Iterator[Any]:
    """Everything that `value` holds, as often as it stands there, and the lists themselves."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        yield each
        if isinstance(each, dict):
            waiting.extend(each)
            waiting.extend(each.values())
        elif isinstance(each, (list, tuple, *_VIEWS)):
            waiting.extend(each)


def foresee(name: str, value: Any, others: list[Any], kwargs: dict[str, Any], budget: TemplateLimits) -> None:
    """Have the budget pay for what a filter or a method of a text is about to make, where that can be large."""

    def argument(index: int, keyword: str, default: Any) -> Any:
        return others[index] if len(others) > index else kwargs.get(keyword, default)

    text = value if isinstance(value, str) else ""
    if name in ("center", "ljust", "rjust", "zfill"):
        budget.write(int(argument(0, "width", 80)))
    elif name == "expandtabs":
        budget.write(text.count("\t") * int(argument(0, "tabsize", 8)))
    elif name == "replace":
        old, new = str(argument(0, "old", "")), str(argument(1, "new", ""))
        budget.write(str(budget.printed(value)).count(old) * len(new))
    elif name in ("join", "joined by"):
        parts, between = (value, argument(0, "d", "")) if name == "join" else (argument(0, "", ()), value)
        budget.write(sum(len(part) for part in parts if isinstance(part, str)) + len(str(between)) * len(parts))
        for part in parts:
            budget.printed(part)
    elif name == "indent":
        width = argument(0, "width", 4)
        budget.write((text.count("\n") + 1) * (len(width) if isinstance(width, str) else int(width)))
    elif name == "tojson":
        parts_in = sum(1 for _ in leaves(budget.printed(value)))
        widths = [len(each) if isinstance(each, str) else each for each in (*others, *kwargs.values())]
        budget.write(parts_in * 16 * max((int(each) for each in widths if isinstance(each, int)), default=0))
    elif name in ("format", "format_map", "%"):
        _refuse_wide(text)
        budget.printed([*others, *kwargs.values()])
    elif name in ("split", "rsplit", "splitlines", "list"):
        budget.step(len(text) // 4)
    elif name in ("string", "safe", "escape", "e", "title", "trim", "lower", "upper"):
        budget.printed(value)


def _refuse_wide(text: str) -> None:
    plain = text.replace("{{", "").replace("}}", "")
    if len(text) > _LONGEST_FORMAT or _WIDE_PERCENT.search(text) or _WIDE_BRACES.search(plain):
        raise TooMuch("it pads text without limit")


def foresee_product(one: Any, other: Any, budget: TemplateLimits) -> None:
    """Have the budget pay for `one` repeated `other` times. Raises TooMuch."""
    if isinstance(one, int) and isinstance(other, int) and one.bit_length() + other.bit_length() > _LONGEST_NUMBER:
        raise TooMuch("it computes a number without limit")
    if not isinstance(other, int) or other <= 0:
        return
    if isinstance(one, str):
        budget.write(len(one) * other)
    elif isinstance(one, (list, tuple)):
        budget.step(sum(1 for _ in leaves(one)) * other)


def foresee_power(one: Any, other: Any) -> None:
    """Raise TooMuch for a power that has more digits than anybody reads."""
    if isinstance(one, int) and isinstance(other, int) and one.bit_length() * abs(other) > _LONGEST_NUMBER:
        raise TooMuch("it computes a number without limit")
