"""Evaluates the tree of a Go template over data, as text/template/exec.go does, within bounds on work and output.

A string is a str, an integer an int, a slice a list, a map or a struct a dict.
"""

from typing import Any

from core.export.proof.gotemplate.functions import LAZY, Functions, to_bytes
from core.export.proof.gotemplate.lexer import GoError
from core.export.proof.gotemplate.parser import (
    Body,
    BranchNode,
    Call,
    Constant,
    FieldNode,
    Function,
    GoTemplate,
    Operand,
    Pipe,
)

MOST_STEPS = 300_000
MOST_CHARACTERS = 20_000_000
# Of templates that call themselves. Go's own bound is 100,000; Python's stack ends long before.
DEEPEST = 150


def execute(template: GoTemplate, data: Any, functions: Functions) -> str:
    """What the template makes of `data`.

    Raises GoError where Go fails, where a function or a field is not known, and where it takes too much.
    """
    run = _Run(template, data, functions)
    try:
        run.walk(template.body, data)
    except RecursionError:
        raise GoError("it is nested too deep") from None
    return to_bytes("".join(run.out)).decode(errors="replace")


class _Run:
    def __init__(self, template: GoTemplate, data: Any, functions: Functions) -> None:
        self.template, self.functions = template, functions
        self.out: list[str] = []
        self.variables: list[tuple[str, Any]] = [("$", data)]
        self.steps = self.size = self.depth = 0

    def walk(self, body: Body, dot: Any) -> None:
        for node in body:
            self.step()
            if isinstance(node, str):
                self.write(node)
            elif isinstance(node, Pipe):
                value = self.pipe(node, dot)
                if not node.variables:
                    self.write(_printed(value))
            elif isinstance(node, BranchNode):
                mark = len(self.variables)
                self.branch(node, dot)
                del self.variables[mark:]
            else:
                self.call(node, dot)

    def step(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise GoError("it takes too long")

    def write(self, text: str) -> None:
        self.size += len(text)
        if self.size > MOST_CHARACTERS:
            raise GoError("it writes too much")
        self.out.append(text)

    def branch(self, node: BranchNode, dot: Any) -> None:
        if node.kind == "if":
            self.walk(node.body if self.pipe(node.pipe, dot) else node.otherwise, dot)
            return
        value, mark = self.value(Pipe(node.pipe.args), dot), len(self.variables)
        if not isinstance(value, list):
            raise GoError(f"range goes over a {type(value).__name__}")
        for place, each in enumerate(value):
            self.step()
            self.set(node.pipe, (each,) if len(node.pipe.variables) == 1 else (place, each))
            self.walk(node.body, each)
            del self.variables[mark:]
        if not value:
            self.walk(node.otherwise, dot)

    def call(self, node: Call, dot: Any) -> None:
        body = self.template.defined.get(node.name)
        if body is None:
            raise GoError(f"the template {node.name!r} is not defined")
        value = self.pipe(node.pipe, dot) if node.pipe is not None else None
        self.depth += 1
        if self.depth > DEEPEST:
            raise GoError("templates call each other too deep")
        outer, self.variables = self.variables, [("$", value)]
        self.walk(body, value)
        self.variables = outer
        self.depth -= 1

    def pipe(self, pipe: Pipe, dot: Any) -> Any:
        """The value of an action, given to its variables."""
        self.step()
        first, rest = pipe.args[0], pipe.args[1:]
        if rest and not isinstance(first, Function):
            raise GoError(f"a {type(first).__name__.lower()} is no function, and is given a value")
        value = self.function(first.name, rest, dot) if isinstance(first, Function) else self.value(first, dot)
        self.set(pipe, (value,))
        return value

    def set(self, pipe: Pipe, values: tuple[Any, ...]) -> None:
        """Give `values` to the variables of `pipe`, where it has any."""
        for name, value in zip(pipe.variables, values, strict=False):
            if pipe.assigns:
                self.variables[self.place(name)] = (name, value)
            else:
                self.variables.append((name, value))

    def place(self, name: str) -> int:
        """Where the innermost variable of that name is held."""
        for at in range(len(self.variables) - 1, -1, -1):
            if self.variables[at][0] == name:
                return at
        raise GoError(f"the variable {name} is not there")

    def function(self, name: str, args: tuple[Operand, ...], dot: Any) -> Any:
        if name in LAZY and args:  # `and`: the first that is empty; `or`: the first that is not; else the last
            for each in args:
                value = self.value(each, dot)
                if bool(value) == (name == "or"):
                    break
            return value
        found = self.functions.get(name)
        if found is None:
            raise GoError(f"the function {name} is not known here")
        try:
            return found(*[self.value(each, dot) for each in args])
        except TypeError:
            raise GoError(f"{name} is given {len(args)} values") from None

    def value(self, operand: Operand, dot: Any) -> Any:
        if isinstance(operand, Constant):
            return operand.value
        if isinstance(operand, Pipe):
            return self.pipe(operand, dot)
        if isinstance(operand, Function):
            return self.function(operand.name, (), dot)
        value = dot if isinstance(operand, FieldNode) else self.variables[self.place(operand.name)][1]
        for name in operand.path:
            if not isinstance(value, dict) or name not in value:
                raise GoError(f"a {type(value).__name__} has no .{name}")
            value = value[name]
        return value


def _printed(value: Any) -> str:
    """As `{{ value }}` prints it."""
    if not isinstance(value, (str, int)):
        raise GoError(f"it prints a {type(value).__name__}")
    return str(value).lower() if isinstance(value, bool) else str(value)
