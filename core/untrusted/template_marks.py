"""The `generation` marks of a chat template: whether it has any, and the same template without them.

Only training needs the marks, and other programs do not know them. They are found by Jinja's own lexer, so that what
stands in a comment, a string or a raw block is left alone.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

_NAMES = ("generation", "endgeneration")
_LINE_ENDS = re.compile(r"\r\n|\r|\n")  # Jinja reads each as \n
# Where names that are set inside are gone outside, as they are inside marks.
_SCOPES = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.With, nodes.AssignBlock)


_MARK = object()


class _Marks(Extension):
    """Reads a marked block as transformers does: as a call, whose names do not leave it."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(nodes.Call(nodes.Const(_MARK), [], [], None, None), [], [], body).set_lineno(line)


# As transformers compiles chat templates, but that a line break at the very end is kept.
_environment = Environment(
    trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, extensions=[_Marks, loopcontrols]
)


@dataclass(frozen=True)
class _Mark:
    """One mark in a template's text: where it stands, `generation` or `endgeneration`, and its two signs."""

    start: int
    end: int
    name: str
    before: str
    behind: str


def has_marks(template: str) -> bool:
    """Whether a chat template marks the replies with `generation`."""
    return bool(_found(_LINE_ENDS.sub("\n", template)))


def plain_template(template: str) -> str:
    """A chat template without its `generation` marks, which renders to the same text, character for character.

    A comment takes the place of each mark, with the same signs for the white space around it. Where a name that is set
    between two marks would be seen behind them, a `with` block does, which ends the name as the marks do.
    """
    source = _LINE_ENDS.sub("\n", template)
    marks = _found(source)
    if not marks:
        return template
    leaking = iter(_leaking(source))
    parts, at, opened = [], 0, []
    for mark in marks:
        if mark.name == "generation":
            opened.append(next(leaking, False))
            inside = " with " if opened[-1] else None
        else:
            inside = " endwith " if opened and opened.pop() else None
        signs = ("{%", "%}") if inside else ("{#", "#}")
        parts += [source[at : mark.start], signs[0], mark.before, inside or " ", mark.behind, signs[1]]
        at = mark.end
    return "".join([*parts, source[at:]])


@lru_cache(maxsize=64)
def _found(source: str) -> tuple[_Mark, ...]:
    """Every mark in the order of the text; none where Jinja cannot read the template."""
    try:
        return tuple(_marks_in(source))
    except TemplateSyntaxError:
        return ()


def _marks_in(source: str) -> Iterator[_Mark]:
    at = 0
    statement: list[tuple[str, str]] = []
    start = 0
    for _, kind, text in _environment.lexer.tokeniter(source, None):
        # The lexer leaves out the white space that a sign takes away; the next token stands behind it.
        at = source.index(text, at)
        if kind == "block_begin":
            statement, start = [], at
        if kind != "whitespace":
            statement.append((kind, text))
        at += len(text)
        if kind == "block_end" and len(statement) == 3 and statement[1] in [("name", name) for name in _NAMES]:
            opening, closing = statement[0][1], text.rstrip()
            end = at - len(text) + len(closing)
            yield _Mark(start, end, statement[1][1], opening[2:], closing[:-2])


def _leaking(source: str) -> list[bool]:
    """For each marked block, in the order of the text, whether a name set in it is read behind it.

    Empty for a template that Jinja cannot compile, which renders nothing anyway.
    """
    found: list[bool] = []
    try:
        _look(_environment.parse(source).body, [], found)
    except (TemplateSyntaxError, RecursionError):
        return []
    return found


def _look(body: Sequence[nodes.Node], behind: Sequence[nodes.Node], found: list[bool]) -> None:
    """Go through `body`; `behind` are the nodes that come after it and see the names that are set in it."""
    for index, node in enumerate(body):
        after = [*body[index + 1 :], *behind]
        # A marked block, not a call that the template makes.
        if isinstance(node, nodes.CallBlock) and getattr(node.call.node, "value", None) is _MARK:
            names = set(_names_set(node.body))
            found.append(any(name.name in names for each in after for name in _names_read(each)))
        for inner in _bodies(node):
            _look(inner, [] if isinstance(node, _SCOPES) else after, found)


def _bodies(node: nodes.Node) -> Iterator[Sequence[nodes.Node]]:
    for field in ("body", "elif_", "else_"):
        inner = getattr(node, field, None)
        if isinstance(inner, list):
            yield inner


def _names_set(body: Sequence[nodes.Node]) -> Iterator[str]:
    for node in body:
        if isinstance(node, (nodes.Macro, nodes.Import)):
            yield node.name if isinstance(node, nodes.Macro) else node.target
        if isinstance(node, nodes.FromImport):
            yield from (each if isinstance(each, str) else each[1] for each in node.names)
        if isinstance(node, (nodes.Assign, nodes.AssignBlock)):
            yield from (each.name for each in _with_inner(node.target) if isinstance(each, nodes.Name))
        if not isinstance(node, _SCOPES):
            for inner in _bodies(node):
                yield from _names_set(inner)


def _names_read(node: nodes.Node) -> Iterator[nodes.Name]:
    return (each for each in _with_inner(node) if isinstance(each, nodes.Name) and each.ctx == "load")


def _with_inner(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    yield from node.find_all(nodes.Node)
