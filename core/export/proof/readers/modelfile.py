"""A Modelfile as Ollama reads it, after its parser/parser.go, as far as Nibble writes any."""

import re
from dataclasses import dataclass, field

_NAME = re.compile(r"\s*(?:(FROM|ADAPTER|TEMPLATE)|PARAMETER[ \t]+(\w+))[ \t]", re.IGNORECASE)
# To the end of the line, or to the three quotes or the one that end a line. Between quotes nothing is escaped.
_ENDS = r"[ \t]*(?![^\r\n])"
_VALUE = re.compile(rf'[ \t]*(?:"""(.*?)"""{_ENDS}|"(?!"")(.*?)"{_ENDS}|((?!")[^\r\n]*))', re.DOTALL)


class BadModelfile(Exception):
    """A Modelfile that Ollama refuses, or that says what Nibble writes into none; says why."""


@dataclass
class Modelfile:
    """What a Modelfile says. `parameters` keeps every value of a name."""

    model: str = ""
    adapter: str | None = None
    template: str | None = None
    parameters: dict[str, list[str]] = field(default_factory=dict)


def parse_modelfile(text: str) -> Modelfile:
    """What is not printable is left out. Raises BadModelfile."""
    text = "".join(letter for letter in text if letter.isprintable() or letter in "\t\r\n").strip()
    found, at = Modelfile(), 0
    while at < len(text):
        name = _NAME.match(text, at)
        if name is None:
            raise BadModelfile(f"{text[at:].lstrip().splitlines()[0][:40]!r} is not understood")
        value = _VALUE.match(text, name.end())
        if value is None:
            raise BadModelfile("a quote is not closed")
        at = value.end()
        _set(found, (name[1] or "").lower(), name[2], next(each for each in value.groups() if each is not None))
    if not found.model:
        raise BadModelfile("no FROM line")
    return found


def _set(modelfile: Modelfile, command: str, parameter: str, value: str) -> None:
    if command == "from":
        modelfile.model = value
    elif command == "adapter":
        modelfile.adapter = value
    elif command == "template":
        modelfile.template = value
    else:
        modelfile.parameters.setdefault(parameter, []).append(value)
