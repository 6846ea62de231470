"""Cuts a Go template into text and actions, and actions into tokens, with the trimming of `{{-` and `-}}`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from core.export.proof.gotemplate.values import GoError

# What Go's lexer takes for white space, around trim marks and between words.
SPACES = " \t\r\n"
_COMMENT = re.compile(r"\{\{(?:-[ \t\r\n]+)?/\*")
_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", "'": "'", '"': '"',
}  # fmt: skip
_TOKENS = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<raw>`[^`]*`)
    |(?P<char>'(?:[^'\\\n]|\\[^\n]+?)')
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]*(?![.eE0-9])|[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9]+)?
        |\.[0-9][0-9_]*(?:[eE][+-]?[0-9]+)?)(?![\w.]))
    |(?P<field>\.[^\W\d]\w*)
    |(?P<dot>\.)
    |(?P<variable>\$\w*)
    |(?P<word>[^\W\d]\w*)
    |(?P<mark>:=|[=|(),])""",
    re.VERBOSE,
)
_SIMPLE_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)


@dataclass(frozen=True)
class TextToken:
    """What stands outside of actions, trimmed."""

    text: str


@dataclass(frozen=True)
class Token:
    """One piece of an action: `kind` as the groups of the expression above, `value` what it says."""

    kind: str
    value: str | int | float


@dataclass(frozen=True)
class Action:
    """What stands between `{{` and `}}`, as tokens; spaces between operands matter and are kept."""

    tokens: tuple[Token, ...]


def split(source: str) -> Iterator[TextToken | Action]:
    """The pieces of a template in their order; comments are gone. Raises GoError."""
    at, trims = 0, False
    while True:
        opens = source.find("{{", at)
        text = source[at:] if opens < 0 else source[at:opens]
        if trims:
            text = text.lstrip(SPACES)
        dashed = opens >= 0 and source.startswith("-", opens + 2) and source[opens + 3 : opens + 4] in tuple(SPACES)
        if dashed:
            text = text.rstrip(SPACES)
        if text:
            yield TextToken(text)
        if opens < 0:
            return
        comment = _COMMENT.match(source, opens)
        if comment:
            at, trims = _after_comment(source, comment.end())
            continue
        tokens, at, trims = _action(source, opens + (4 if dashed else 2))
        yield Action(tokens)


def _after_comment(source: str, at: int) -> tuple[int, bool]:
    closes = source.find("*/", at)
    if closes < 0:
        raise GoError("a comment is not closed")
    for end, trims in (("}}", False), *((f"{space}-}}}}", True) for space in SPACES)):
        if source.startswith(end, closes + 2):
            return closes + 2 + len(end), trims
    raise GoError("a comment ends before its action does")


def _action(source: str, at: int) -> tuple[tuple[Token, ...], int, bool]:
    """The tokens of the action that begins at `at`, where the text after it begins, and whether that is trimmed."""
    tokens: list[Token] = []
    while True:
        if source.startswith("}}", at):
            return tuple(tokens), at + 2, False
        if source[at : at + 1] in tuple(SPACES) and source.startswith("-}}", at + 1):
            return tuple(tokens), at + 4, True
        found = _TOKENS.match(source, at)
        if found is None:
            raise GoError(
                f"{source[at : at + 20]!r} is not understood in an action"
                if at < len(source)
                else "an action is not closed"
            )
        kind, text, at = str(found.lastgroup), found[0], found.end()
        if kind == "space" and source.startswith("-}}", at):  # the last of several spaces belongs to the mark
            return tuple(tokens), at + 3, True
        tokens.append(_token(kind, text))


def _token(kind: str, text: str) -> Token:
    if kind == "string":
        return Token("constant", unquoted(text[1:-1]))
    if kind == "raw":
        return Token("constant", text[1:-1].replace("\r", ""))
    if kind == "char":
        letter = unquoted(text[1:-1])
        if len(letter) != 1:
            raise GoError(f"{text} is no character")
        return Token("constant", ord(letter))
    if kind == "number":
        return Token("constant", _number(text))
    return Token(kind, text[1:] if kind == "field" else text)


def _number(text: str) -> int | float:
    plain = text.replace("_", "")
    if re.fullmatch(r"[+-]?0[0-7]+", plain):
        return int(plain, 8)
    try:
        return int(plain, 0)
    except ValueError:
        return float(plain)


def unquoted(text: str) -> str:
    """The inside of a Go string in double quotes, its escapes taken for what they mean. Raises GoError."""

    def meant(found: re.Match[str]) -> str:
        said = found[1]
        if said[0] in "xuU" and len(said) > 1:
            return chr(int(said[1:], 16))
        if len(said) == 3:
            return chr(int(said, 8))
        if said not in _ESCAPES:
            raise GoError(f"\\{said} is no escape")
        return _ESCAPES[said]

    return _SIMPLE_ESCAPE.sub(meant, text)
