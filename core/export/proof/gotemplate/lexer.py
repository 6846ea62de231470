"""Cuts a Go template into text and actions, and actions into tokens."""

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

_TOKENS = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<string>"(?:[^"\\\r\n\0]|\\(?:["\\abfnrtv]|u[0-9a-fA-F]{4}|U000[0-9a-fA-F]{5}|U0010[0-9a-fA-F]{4}))*")
    |(?P<number>-?(?:0|[1-9][0-9]*)(?![\w.]))
    |(?P<field>\.[^\W\d]\w*)
    |(?P<dot>\.)
    |(?P<variable>\$\w*)
    |(?P<word>[^\W\d]\w*)
    |(?P<mark>:=|[=(),])""",
    re.VERBOSE,
)


class GoError(Exception):
    """A template that Go refuses, fails at, or that uses what is not known here; says which."""


class Token(NamedTuple):
    """One word of an action: `kind` as the groups of the expression above, or "constant"."""

    kind: str
    value: str | int
    spaced: bool
    """Whether white space stands before it, as it must between operands."""


def split(source: str) -> Iterator[str | list[Token]]:
    """The texts of a template and the tokens of its actions, in their order. Raises GoError."""
    at = 0
    while (opens := source.find("{{", at)) >= 0:
        if opens > at:
            yield source[at:opens]
        tokens, at = _action(source, opens + 2)
        yield tokens
    if at < len(source):
        yield source[at:]


def _action(source: str, at: int) -> tuple[list[Token], int]:
    """The tokens of the action that begins at `at`, and where the text after it begins."""
    tokens: list[Token] = []
    spaced = False
    while not source.startswith("}}", at):
        found = _TOKENS.match(source, at)
        if found is None:
            what = f"{source[at : at + 20]!r} is not understood in" if at < len(source) else "no }} closes"
            raise GoError(f"{what} an action")
        kind, text, at = str(found.lastgroup), found[0], found.end()
        if kind in ("string", "number"):  # written as Python writes them
            try:
                tokens.append(Token("constant", ast.literal_eval(text), spaced))
            except (SyntaxError, ValueError):  # an escape or a number that is none
                raise GoError(f"{text[:20]!r} is not understood in an action") from None
        elif kind != "space":
            tokens.append(Token(kind, text[1:] if kind == "field" else text, spaced))
        spaced = kind == "space"
    return tokens, at + 2
