"""Reads a Go template into its tree, with what is defined in it. Nothing is evaluated here."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from core.export.proof.gotemplate.lexer import Action, TextToken, Token, split
from core.export.proof.gotemplate.nodes import (
    Body,
    BranchNode,
    Call,
    Chain,
    Command,
    Constant,
    Do,
    Dot,
    FieldNode,
    Function,
    JumpNode,
    Nil,
    Node,
    Operand,
    Pipe,
    TextNode,
    Variable,
)
from core.export.proof.gotemplate.values import GoError

MOST_CHARACTERS = 200_000
DEEPEST = 100
_ENDS = ("end", "else")
_KEYWORDS = {
    *_ENDS,
    "if",
    "with",
    "range",
    "define",
    "block",
    "template",
    "break",
    "continue",
    "nil",
    "true",
    "false",
}


@dataclass
class GoTemplate:
    """A template's tree, those that it defines by name, and the functions that are named in any of them."""

    body: Body
    defined: dict[str, Body] = field(default_factory=dict)
    functions: frozenset[str] = frozenset()


def parse(source: str) -> GoTemplate:
    """Raises GoError where Go would refuse the template, or where it uses what is not known here."""
    if len(source) > MOST_CHARACTERS:
        raise GoError(f"it has {len(source):,} characters; at most {MOST_CHARACTERS:,} are read")
    pieces = list(split(source))
    reader = _Parser(iter(pieces))
    body, end = reader.body(0)
    if end is not None:
        raise GoError(f"{{{{ {end.words[0]} }}}} has nothing that it ends")
    return GoTemplate(body, reader.defined, frozenset(reader.functions))


class _Words:
    """The tokens of one action, read from left to right."""

    def __init__(self, tokens: tuple[Token, ...]) -> None:
        self._tokens, self._at = tokens, 0

    @property
    def words(self) -> list[str]:
        return [str(token.value) for token in self._tokens if token.kind == "word"]

    def peek(self, over_spaces: bool = True) -> Token | None:
        while over_spaces and self._at < len(self._tokens) and self._tokens[self._at].kind == "space":
            self._at += 1
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def take(self, kind: str, value: str | None = None, over_spaces: bool = True) -> Token | None:
        """The next token where it is such a one, else None and nothing is taken."""
        found = self.peek(over_spaces)
        if found is None or found.kind != kind or (value is not None and found.value != value):
            return None
        self._at += 1
        return found

    def done(self) -> None:
        """Raises GoError where something is left."""
        left = self.peek()
        if left is not None:
            raise GoError(f"{left.value!r} is not expected in its action")

    def mark(self) -> int:
        return self._at

    def back(self, to: int) -> None:
        self._at = to


class _Parser:
    def __init__(self, pieces: Iterator[TextToken | Action]) -> None:
        self._pieces = pieces
        self.defined: dict[str, Body] = {}
        self.functions: set[str] = set()
        self._loops = 0

    def body(self, depth: int) -> tuple[Body, _Words | None]:
        """The nodes up to an `end` or `else` of an outer one, which is returned with what stands in it."""
        if depth > DEEPEST:
            raise GoError("it is nested too deep")
        nodes: list[Node] = []
        for piece in self._pieces:
            if isinstance(piece, TextToken):
                nodes.append(TextNode(piece.text))
                continue
            words = _Words(piece.tokens)
            self.functions |= set(words.words) - _KEYWORDS
            first = words.peek()
            keyword = first.value if first is not None and first.kind == "word" else None
            if keyword in _ENDS:
                return tuple(nodes), words
            nodes += self._node(words, str(keyword), depth)
        return tuple(nodes), None

    def _node(self, words: _Words, keyword: str, depth: int) -> list[Node]:
        if keyword in ("if", "with", "range"):
            words.take("word")
            return [self._branch(cast(Literal["if", "with", "range"], keyword), words, depth)]
        if keyword in ("define", "block"):
            words.take("word")
            return self._define(keyword, words, depth)
        if keyword == "template":
            words.take("word")
            name = _name(words)
            return [Call(name, _pipe(words, depth) if words.peek() else None)]
        if keyword in ("break", "continue") and len(words.words) == 1:
            if not self._loops:
                raise GoError(f"{{{{ {keyword} }}}} stands outside of a range")
            return [JumpNode(cast(Literal["break", "continue"], keyword))]
        pipe = _pipe(words, depth)
        words.done()
        return [Do(pipe)]

    def _branch(self, kind: Literal["if", "with", "range"], words: _Words, depth: int) -> BranchNode:
        pipe = _pipe(words, depth, most_variables=2 if kind == "range" else 1)
        words.done()
        self._loops += kind == "range"
        body, end = self.body(depth + 1)
        self._loops -= kind == "range"
        return BranchNode(kind, pipe, body, self._otherwise(end, kind, depth))

    def _otherwise(self, end: _Words | None, kind: str, depth: int) -> Body | None:
        """What follows an `else`, up to the `end` of all; `else if` is an `if` of its own with the same end."""
        if end is None:
            raise GoError(f"{{{{ {kind} }}}} has no {{{{ end }}}}")
        if end.take("word", "end"):
            end.done()
            return None
        end.take("word", "else")
        chained = end.take("word", "if") or end.take("word", "with")
        if chained is not None:
            return (self._branch(cast(Literal["if", "with"], chained.value), end, depth + 1),)
        end.done()
        body, last = self.body(depth + 1)
        if last is None or not last.take("word", "end"):
            raise GoError(f"{{{{ {kind} }}}} has no {{{{ end }}}}")
        return body

    def _define(self, kind: str, words: _Words, depth: int) -> list[Node]:
        name = _name(words)
        pipe = _pipe(words, depth) if kind == "block" else None
        words.done()
        body, end = self.body(depth + 1)
        if end is None or not end.take("word", "end"):
            raise GoError(f"the definition of {name!r} has no {{{{ end }}}}")
        self.defined[name] = body
        return [Call(name, pipe)] if kind == "block" else []


def _name(words: _Words) -> str:
    found = words.take("constant")
    if found is None or not isinstance(found.value, str):
        raise GoError("a template is named by a text in quotes")
    return found.value


def _pipe(words: _Words, depth: int, most_variables: int = 1) -> Pipe:
    """Raises GoError where nothing is in it."""
    if depth > DEEPEST:
        raise GoError("it is nested too deep")
    variables, assigns = _declared(words, most_variables)
    commands = [_command(words, depth)]
    while words.take("mark", "|"):
        commands.append(_command(words, depth))
    return Pipe(tuple(commands), variables, assigns)


def _declared(words: _Words, most: int) -> tuple[tuple[str, ...], bool]:
    start = words.mark()
    names: list[str] = []
    while len(names) < most:
        variable = words.take("variable")
        if variable is None:
            break
        names.append(str(variable.value))
        if words.take("mark", ":="):
            return tuple(names), False
        if words.take("mark", "="):
            return tuple(names), True
        if not words.take("mark", ","):
            break
    words.back(start)
    return (), False


def _command(words: _Words, depth: int) -> Command:
    args: list[Operand] = []
    while True:
        operand = _operand(words, depth)
        if operand is None:
            break
        args.append(operand)
        if words.peek(over_spaces=False) is None or words.take("space", over_spaces=False) is None:
            break
    if not args:
        raise GoError("a value is missing in an action")
    return Command(tuple(args))


def _operand(words: _Words, depth: int) -> Operand | None:
    term = _term(words, depth)
    if term is None:
        return None
    path: list[str] = []
    while found := words.take("field", over_spaces=False):
        path.append(str(found.value))
    if not path:
        return term
    if isinstance(term, FieldNode):
        return FieldNode((*term.path, *path))
    if isinstance(term, Variable):
        return Variable(term.name, tuple(path))
    if isinstance(term, (Constant, Nil, Dot)):
        raise GoError(f"a field of {term} is asked for")
    return Chain(term, tuple(path))


def _term(words: _Words, depth: int) -> Operand | None:
    if words.take("mark", "("):
        inner = _pipe(words, depth + 1)
        if not words.take("mark", ")"):
            raise GoError("a bracket is not closed")
        return inner
    found = words.peek()
    if found is None or found.kind == "mark":
        return None
    words.take(found.kind)
    return _plain(found.kind, found.value)


def _plain(kind: str, value: Any) -> Operand:
    if kind == "dot":
        return Dot()
    if kind == "field":
        return FieldNode((value,))
    if kind == "variable":
        return Variable(value)
    if kind == "constant":
        return Constant(value)
    if value in ("true", "false"):
        return Constant(value == "true")
    return Nil() if value == "nil" else Function(value)
