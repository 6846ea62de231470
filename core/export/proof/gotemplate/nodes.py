"""The tree of a Go template, as text/template/parse has it, as far as it is evaluated here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Dot:
    """`.`"""


@dataclass(frozen=True)
class Nil:
    """`nil`"""


@dataclass(frozen=True)
class Constant:
    """A text, a number or a truth value."""

    value: Any


@dataclass(frozen=True)
class FieldNode:
    """`.A.B`"""

    path: tuple[str, ...]


@dataclass(frozen=True)
class Variable:
    """`$x.A.B`; the name of `$` is `$`."""

    name: str
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chain:
    """`(…).A.B`"""

    of: Operand
    path: tuple[str, ...]


@dataclass(frozen=True)
class Function:
    """A function's name."""

    name: str


@dataclass(frozen=True)
class Command:
    """Operands side by side: the first is called with the others where it is a function."""

    args: tuple[Operand, ...]


@dataclass(frozen=True)
class Pipe:
    """Commands from left to right, each given what the one before it made, and the variables that take the result."""

    commands: tuple[Command, ...]
    variables: tuple[str, ...] = ()
    assigns: bool = False


Operand = Dot | Nil | Constant | FieldNode | Variable | Chain | Function | Pipe


@dataclass(frozen=True)
class TextNode:
    """Text outside of actions."""

    text: str


@dataclass(frozen=True)
class Do:
    """`{{ pipe }}`: printed, unless it sets a variable."""

    pipe: Pipe


@dataclass(frozen=True)
class BranchNode:
    """`if`, `with` and `range`, each with what is done otherwise, or None."""

    kind: Literal["if", "with", "range"]
    pipe: Pipe
    body: Body
    otherwise: Body | None


@dataclass(frozen=True)
class Call:
    """`{{ template "name" pipe }}`"""

    name: str
    pipe: Pipe | None


@dataclass(frozen=True)
class JumpNode:
    """`break` or `continue`."""

    kind: Literal["break", "continue"]


Node = TextNode | Do | BranchNode | Call | JumpNode
Body = tuple[Node, ...]
