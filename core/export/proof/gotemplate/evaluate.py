"""Evaluates the tree of a Go template over data, as text/template/exec.go does, within bounds on work and output."""

from collections.abc import Iterator
from typing import Any

from core.export.proof.gotemplate.functions import LAZY, Functions, builtins
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
    Operand,
    Pipe,
    TextNode,
    Variable,
)
from core.export.proof.gotemplate.parser import GoTemplate
from core.export.proof.gotemplate.values import GoError, Struct, printed, to_bytes, truth, type_name

MOST_STEPS = 300_000
MOST_CHARACTERS = 20_000_000
# Of templates that call themselves. Go's own bound is 100,000; Python's stack ends long before.
DEEPEST = 150
_NOTHING = object()


def execute(template: GoTemplate, data: Any, functions: Functions) -> str:
    """What the template makes of `data`. A key that a map lacks is nil, and nil has no fields.

    Raises GoError where Go fails, where a function is not known, and where it takes too much.
    """
    return _Run(template, data, {**builtins(), **functions}).text()


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Run:
    def __init__(self, template: GoTemplate, data: Any, functions: Functions) -> None:
        self.template, self.data, self.functions = template, data, functions
        self.out: list[str] = []
        self.variables: list[tuple[str, Any]] = [("$", data)]
        self.steps = self.size = self.depth = 0

    def text(self) -> str:
        try:
            self.walk(self.template.body, self.data)
        except RecursionError:
            raise GoError("it is nested too deep") from None
        return to_bytes("".join(self.out)).decode(errors="replace")

    def walk(self, body: Body, dot: Any) -> None:
        for node in body:
            self.step()
            if isinstance(node, TextNode):
                self.write(node.text)
            elif isinstance(node, Do):
                value = self.pipe(node.pipe, dot)
                if not node.pipe.variables:
                    self.write(printed(value))
            elif isinstance(node, BranchNode):
                mark = len(self.variables)
                self.branch(node, dot)
                del self.variables[mark:]
            elif isinstance(node, Call):
                self.call(node, dot)
            else:
                self.jump(node)

    def step(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise GoError("it takes too long")

    def write(self, text: str) -> None:
        self.size += len(text)
        if self.size > MOST_CHARACTERS:
            raise GoError("it writes too much")
        self.out.append(text)

    def jump(self, node: JumpNode) -> None:
        raise _Break if node.kind == "break" else _Continue

    def branch(self, node: BranchNode, dot: Any) -> None:
        if node.kind == "range":
            self.range(node, dot)
            return
        value = self.pipe(node.pipe, dot)
        if truth(value):
            self.walk(node.body, value if node.kind == "with" else dot)
        elif node.otherwise is not None:
            self.walk(node.otherwise, dot)

    def range(self, node: BranchNode, dot: Any) -> None:
        value = self.pipe(node.pipe, dot, declare=False)
        mark, ran = len(self.variables), False
        for key, each in _pairs(value):
            ran = True
            self.step()
            self._loop_variables(node.pipe, key, each)
            try:
                self.walk(node.body, each)
            except _Break:
                break
            except _Continue:
                continue
            finally:
                del self.variables[mark:]
        if not ran and node.otherwise is not None:
            self.walk(node.otherwise, dot)

    def _loop_variables(self, pipe: Pipe, key: Any, each: Any) -> None:
        names = pipe.variables
        values = (each,) if len(names) == 1 else (key, each)
        for name, value in zip(names, values, strict=False):
            if pipe.assigns:
                self.assign(name, value)
            else:
                self.variables.append((name, value))

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

    def pipe(self, pipe: Pipe, dot: Any, declare: bool = True) -> Any:
        value: Any = _NOTHING
        for command in pipe.commands:
            value = self.command(command, dot, value)
        if declare:
            for name in pipe.variables:
                if pipe.assigns:
                    self.assign(name, value)
                else:
                    self.variables.append((name, value))
        return value

    def assign(self, name: str, value: Any) -> None:
        for at in range(len(self.variables) - 1, -1, -1):
            if self.variables[at][0] == name:
                self.variables[at] = (name, value)
                return
        raise GoError(f"the variable {name} is not there")

    def command(self, command: Command, dot: Any, last: Any) -> Any:
        self.step()
        first, rest = command.args[0], command.args[1:]
        if isinstance(first, Function):
            return self.function(first.name, rest, dot, last)
        if rest or last is not _NOTHING:
            raise GoError(f"{_named(first)} is no function, and is given a value")
        if isinstance(first, Nil):
            raise GoError("nil is no command")
        return self.value(first, dot)

    def function(self, name: str, args: tuple[Operand, ...], dot: Any, last: Any) -> Any:
        given = [] if last is _NOTHING else [last]
        if name in LAZY:
            return self._lazy(name, args, dot, given)
        found = self.functions.get(name)
        if found is None:
            raise GoError(f"the function {name} is not known here")
        try:
            return found(*[self.value(each, dot) for each in args], *given)
        except TypeError:
            raise GoError(f"{name} is given {len(args) + len(given)} values") from None

    def _lazy(self, name: str, args: tuple[Operand, ...], dot: Any, given: list[Any]) -> Any:
        """`and`: the first that is empty; `or`: the first that is not; else the last."""
        value: Any = _NOTHING
        for each in (*args, *given):
            value = self.value(each, dot) if isinstance(each, _OPERANDS) else each
            if truth(value) == (name == "or"):
                return value
        if value is _NOTHING:
            raise GoError(f"{name} is given nothing")
        return value

    def value(self, operand: Operand, dot: Any) -> Any:
        if isinstance(operand, Dot):
            return dot
        if isinstance(operand, Constant):
            return operand.value
        if isinstance(operand, FieldNode):
            return self.fields(dot, operand.path)
        if isinstance(operand, Variable):
            return self.fields(self.variable(operand.name), operand.path)
        if isinstance(operand, Chain):
            return self.fields(self.value(operand.of, dot), operand.path)
        if isinstance(operand, Pipe):
            return self.pipe(operand, dot)
        if isinstance(operand, Function):
            return self.function(operand.name, (), dot, _NOTHING)
        return None

    def variable(self, name: str) -> Any:
        for held, value in reversed(self.variables):
            if held == name:
                return value
        raise GoError(f"the variable {name} is not there")

    def fields(self, value: Any, path: tuple[str, ...]) -> Any:
        for name in path:
            if value is None:
                raise GoError(f".{name} of nothing is asked for")
            if isinstance(value, dict):
                value = value.get(name)
            elif isinstance(value, Struct) and name in value.fields:
                value = value.fields[name]
            else:
                raise GoError(f"a {type_name(value)} has no .{name}")
        return value


_OPERANDS = (Dot, Nil, Constant, FieldNode, Variable, Chain, Function, Pipe)


def _pairs(value: Any) -> Iterator[tuple[Any, Any]]:
    """What `range` goes over: places and elements, keys in their order and values, or the numbers below one."""
    if isinstance(value, dict):
        return iter(sorted(value.items()))
    if isinstance(value, (list, tuple)):
        return iter(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return ((number, number) for number in range(value))
    if value is None:
        return iter(())
    raise GoError(f"range goes over a {type_name(value)}")


def _named(operand: Operand) -> str:
    if isinstance(operand, FieldNode):
        return "." + ".".join(operand.path)
    return operand.name if isinstance(operand, Variable) else type(operand).__name__.lower()
