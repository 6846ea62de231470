"""A Modelfile as Ollama reads it, after its parser/parser.go: commands, and what stands in one, two or three quotes."""

import re
from dataclasses import dataclass, field
from pathlib import Path

_COMMANDS = {
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
}
LARGEST_BYTES = 500_000
_ENDS = 20
_QUOTES = ('"""', '"')
_LINE, _SPACE = re.compile(r"[\r\n]"), re.compile(r"[ \t\r\n]")


class BadModelfile(Exception):
    """A Modelfile that Ollama refuses; says why."""


@dataclass
class Modelfile:
    """What a Modelfile says. `parameters` keeps every value of a name, `messages` are (role, text)."""

    model: str = ""
    adapter: str | None = None
    template: str | None = None
    system: str = ""
    parameters: dict[str, list[str]] = field(default_factory=dict)
    messages: list[tuple[str, str]] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)


def read_modelfile(path: Path) -> Modelfile:
    """Raises BadModelfile, OSError."""
    if path.stat().st_size > LARGEST_BYTES:
        raise BadModelfile(f"{path.name} is larger than any Modelfile")
    return parse_modelfile(path.read_bytes().decode("utf-8-sig", errors="replace"))


def parse_modelfile(text: str) -> Modelfile:
    """Raises BadModelfile."""
    found = Modelfile()
    for name, value in _commands(text):
        if name == "from":
            found.model = value
        elif name == "adapter":
            found.adapter = value
        elif name == "template":
            found.template = value
        elif name == "system":
            found.system = value
        elif name.startswith("parameter "):
            found.parameters.setdefault(name.removeprefix("parameter "), []).append(value)
        elif name.startswith("message "):
            found.messages.append((name.removeprefix("message "), value))
        else:
            found.others[name] = value
    if not found.model:
        raise BadModelfile("no FROM line")
    return found


def _commands(text: str) -> list[tuple[str, str]]:
    """Name and value of each command, the name of a parameter or a message with it."""
    found, at = [], 0
    while at < len(text):
        if text[at] in " \t\r\n":
            at += 1
        elif text[at] == "#":
            at = _until(text, at, _LINE)
        else:
            name, at = _word(text, at)
            if name.lower() not in _COMMANDS:
                raise BadModelfile(f"{name!r} is no command of a Modelfile")
            name = name.lower()
            if name in ("parameter", "message"):
                inner, at = _word(text, at + 1)
                name = f"{name} {inner}"
            value, at = _value(text, at + 1)
            found.append((name, value))
    return found


def _until(text: str, at: int, ends: re.Pattern[str]) -> int:
    found = ends.search(text, at)
    return found.start() if found else len(text)


def _word(text: str, at: int) -> tuple[str, int]:
    end = _until(text, at, _SPACE)
    if end == len(text) or text[end] not in " \t":
        raise BadModelfile(f"nothing follows {text[at:end]!r}")
    return text[at:end], end


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that begins at `at`: to the end of the line, or of the quotes; what is not printable is left out."""
    start = _kept(text[at : at + _ENDS]).lstrip()
    quotes = next((each for each in _QUOTES if start.startswith(each)), "")
    end = at
    while True:
        end = _until(text, end, _LINE)
        # Only where quotes may close is the whole looked at: there can be as many lines as there are letters.
        if end == len(text) or _kept(text[max(at, end - _ENDS) : end]).rstrip().endswith(quotes):
            value = _unquoted(_kept(text[at:end]).strip())
            if value is not None:
                return value, end
        if end == len(text):
            raise BadModelfile("a quote is not closed")
        end += 1


def _kept(text: str) -> str:
    return "".join(letter for letter in text if _is_kept(letter))


def _is_kept(letter: str) -> bool:
    return letter.isprintable() or letter in " \t\r\n"


def _unquoted(text: str) -> str | None:
    """The inside of the quotes, of which nothing is escaped; None where they are not closed yet."""
    for quotes in _QUOTES:
        if text.startswith(quotes):
            closed = len(text) >= 2 * len(quotes) and text.endswith(quotes)
            return text[len(quotes) : -len(quotes)] if closed else None
    return text
