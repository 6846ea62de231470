"""Reads a Go template into its tree, with what is defined in it. Nothing is evaluated here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from core.export.proof.gotemplate.lexer import GoError, Token, split

MOST_CHARACTERS = 200_000
DEEPEST = 100
_KEYWORDS = {"end", "else", "if", "range", "define", "template", "true", "false"}


@dataclass(frozen=True)
class Constant:
    """A text, a number or a truth value."""

    value: str | int | bool


@dataclass(frozen=True)
class FieldNode:
    """`.A.B`; `.` has no path."""

    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variable:
    """`$x.A.B`; the name of `$` is `$`."""

    name: str
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Function:
    """A function's name."""

    name: str


@dataclass(frozen=True)
class Pipe:
    """Operands side by side, the first called with the others where it is a function; variables take the result."""

    args: tuple[Operand, ...]
    variables: tuple[str, ...] = ()
    assigns: bool = False


Operand = Constant | FieldNode | Variable | Function | Pipe


@dataclass(frozen=True)
class BranchNode:
    """`if` and `range`, each with what is done otherwise."""

    kind: Literal["if", "range"]
    pipe: Pipe
    body: Body
    otherwise: Body = ()


@dataclass(frozen=True)
class Call:
    """`{{ template "name" pipe }}`"""

    name: str
    pipe: Pipe | None


# A text outside of actions, or an action; a plain pipe is printed, unless it sets a variable.
Node = str | Pipe | BranchNode | Call
Body = tuple[Node, ...]


@dataclass
class GoTemplate:
    """A template's tree, those that it defines by name, and the functions that are named in any of them."""

    body: Body
    defined: dict[str, Body]
    functions: set[str]


def parse(source: str) -> GoTemplate:
    """Raises GoError where Go would refuse the template, or where it uses what is not known here."""
    if len(source) > MOST_CHARACTERS:
        raise GoError(f"it has {len(source):,} characters; at most {MOST_CHARACTERS:,} are read")
    parser = _Parser(split(source))
    body, end = parser.body(0)
    if end is not None:
        raise GoError("an {{ end }} or {{ else }} has nothing that it ends")
    return GoTemplate(body, parser.defined, parser.functions)


class _Action:
    """The tokens of one action, read from left to right."""

    def __init__(self, tokens: list[Token]) -> None:
        self.left = tokens[::-1]

    def take(self, kind: str, value: str | None = None) -> Token | None:
        """The next token where it is such a one, else None and nothing is taken."""
        found = self.left[-1] if self.left else None
        if found is None or found.kind != kind or (value is not None and found.value != value):
            return None
        return self.left.pop()

    def name(self) -> str:
        """A template's name."""
        found = self.take("constant")
        if found is None or not isinstance(found.value, str):
            raise GoError("a template is named by a text in quotes")
        return found.value

    def done(self) -> None:
        """Raises GoError where something is left."""
        if self.left:
            raise GoError(f"{self.left[-1].value!r} is not expected in its action")


class _Parser:
    def __init__(self, parts: Iterator[str | list[Token]]) -> None:
        self._parts = parts
        self.defined: dict[str, Body] = {}
        self.functions: set[str] = set()

    def body(self, depth: int) -> tuple[Body, _Action | None]:
        """The nodes up to an `end` or `else` of an outer one, which is returned with what stands in it."""
        if depth > DEEPEST:
            raise GoError("it is nested too deep")
        nodes: list[Node] = []
        for part in self._parts:
            if isinstance(part, str):
                nodes.append(part)
                continue
            self.functions |= {str(token.value) for token in part if token.kind == "word"} - _KEYWORDS
            if part and part[0].kind == "word" and part[0].value in ("end", "else"):
                return tuple(nodes), _Action(part)
            node = self._node(_Action(part), depth)
            nodes += [node] if node is not None else []
        return tuple(nodes), None

    def _node(self, action: _Action, depth: int) -> Node | None:
        """One action; None for a definition, which is kept apart."""
        if action.take("word", "if"):
            return self._branch("if", action, depth)
        if action.take("word", "range"):
            return self._branch("range", action, depth)
        if action.take("word", "define"):
            name = action.name()
            action.done()
            self.defined[name] = self._up_to_end(f"the definition of {name!r}", depth)
            return None
        if action.take("word", "template"):
            return Call(action.name(), _pipe(action) if action.left else None)
        return _pipe(action)

    def _branch(self, kind: Literal["if", "range"], action: _Action, depth: int) -> BranchNode:
        pipe = _pipe(action, most_variables=2 if kind == "range" else 1)
        body, end = self.body(depth + 1)
        if end is None:
            raise GoError(f"{{{{ {kind} }}}} has no {{{{ end }}}}")
        otherwise: Body = ()
        if end.take("word", "else"):
            if end.take("word", "if"):  # it has the same end
                return BranchNode(kind, pipe, body, (self._branch("if", end, depth + 1),))
            otherwise = self._up_to_end(f"{{{{ {kind} }}}}", depth)
        else:
            end.take("word", "end")
        end.done()
        return BranchNode(kind, pipe, body, otherwise)

    def _up_to_end(self, what: str, depth: int) -> Body:
        body, end = self.body(depth + 1)
        if end is None or not end.take("word", "end"):
            raise GoError(f"{what} has no {{{{ end }}}}")
        return body


def _pipe(action: _Action, most_variables: int = 1) -> Pipe:
    """All of an action. Raises GoError where nothing is in it."""
    variables, assigns = _declared(action, most_variables)
    pipe = Pipe(_operands(action, 0), variables, assigns)
    action.done()
    return pipe


def _declared(action: _Action, most: int) -> tuple[tuple[str, ...], bool]:
    """The variables before a `:=` or `=`, and whether it is the latter."""
    tokens = action.left[::-1]
    at = next((n for n, each in enumerate(tokens) if each.kind == "mark" and each.value in (":=", "=")), 0)
    if not at:
        return (), False
    names, commas = tokens[0:at:2], tokens[1:at:2]
    are_names = all(each.kind == "variable" for each in names) and all(each[:2] == ("mark", ",") for each in commas)
    if at % 2 == 0 or len(names) > most or not are_names:
        raise GoError(f"{tokens[at].value} does not follow a variable")
    del action.left[-at - 1 :]
    return tuple(str(each.value) for each in names), tokens[at].value == "="


def _operands(action: _Action, depth: int) -> tuple[Operand, ...]:
    if depth > DEEPEST:
        raise GoError("it is nested too deep")
    found: list[Operand] = []
    while action.left and action.left[-1][:2] != ("mark", ")") and (not found or action.left[-1].spaced):
        found.append(_operand(action, depth))
    if not found:
        raise GoError("a value is missing in an action")
    return tuple(found)


def _operand(action: _Action, depth: int) -> Operand:
    token = action.left.pop()
    if token.value == "(" and token.kind == "mark":
        inner = Pipe(_operands(action, depth + 1))
        if not action.take("mark", ")"):
            raise GoError("a bracket is not closed")
        return inner
    if token.kind == "constant":
        return Constant(token.value)
    if token.kind == "word":
        return Constant(token.value == "true") if token.value in ("true", "false") else Function(str(token.value))
    path = [str(token.value)] if token.kind == "field" else []
    while token.kind != "dot" and action.left and action.left[-1].kind == "field" and not action.left[-1].spaced:
        path.append(str(action.left.pop().value))
    if token.kind == "mark":
        raise GoError(f"{token.value!r} is not expected in its action")
    return Variable(str(token.value), tuple(path)) if token.kind == "variable" else FieldNode(tuple(path))
