"""What Ollama makes of a conversation with a Modelfile's TEMPLATE, after its template/template.go.

A template that speaks of `.Messages` is executed once over all of them. Any other is executed for each question with
`.System`, `.Prompt` and `.Response`, the last time cut at `.Response`, where the model goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from core.export.proof.gotemplate import GoError, GoTemplate, execute, parse
from core.export.proof.gotemplate.functions import LAZY, UNUSED, Functions, builtins, ollama
from core.export.proof.gotemplate.nodes import (
    Body,
    BranchNode,
    Call,
    Command,
    Do,
    FieldNode,
    Node,
    Operand,
    Pipe,
    Variable,
)
from core.export.proof.gotemplate.values import JsonList, JsonMap, Ordered, Struct, TypeNames

Message = dict[str, Any]
_RESPONSE = Do(Pipe((Command((FieldNode(("Response",)),)),)))
_MESSAGE = ("Role", "Content", "Thinking", "Images", "ToolCalls", "ToolName", "ToolCallID")


class OllamaTemplate:
    """A TEMPLATE as `ollama create` reads it. Raises GoError where that refuses it."""

    def __init__(self, source: str, functions: Functions | None = None) -> None:
        self.functions = ollama() if functions is None else functions
        self.template = parse(source)
        unknown = self.template.functions - {*builtins(), *self.functions, *LAZY, *UNUSED}
        if unknown:
            raise GoError(f"Ollama knows no function {', '.join(sorted(unknown))}")
        self.names = {name.lower() for body in self._bodies() for name in _names(body)}
        if not self.names & {"messages", "response"}:
            self.template = replace(self.template, body=(*self.template.body, _RESPONSE))

    def _bodies(self) -> list[Body]:
        return [self.template.body, *self.template.defined.values()]

    def render(self, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> str:
        """The prompt for the reply to `messages`. Raises GoError where Ollama fails."""
        thinks = "thinking" in self.names  # Ollama then asks for thoughts unless it is told not to
        think = {"Think": thinks, "ThinkLevel": "medium" if thinks else "", "IsThinkSet": thinks}
        system, joined = collated(messages)
        if "messages" not in self.names:
            return self._each(joined, think)
        values = {"Messages": [_message(each) for each in joined], "Tools": _tools(tools), "Response": ""}
        return execute(self.template, {"System": system, **values, **think}, self.functions)

    def _each(self, messages: list[Message], think: dict[str, Any]) -> str:
        parts: list[str] = []
        values = {"System": "", "Prompt": "", "Response": ""}

        def done() -> None:
            parts.append(execute(self.template, {**values, **think}, self.functions))
            values.update(System="", Prompt="", Response="")

        for message in messages:
            role = message["role"]
            if role == "system":
                if values["Prompt"] or values["Response"]:
                    done()
                values["System"] = message["content"]
            elif role == "user":
                if values["Response"]:
                    done()
                values["Prompt"] = message["content"]
            elif role == "assistant":
                values["Response"] = message["content"]
        cut = GoTemplate(_Cut().body(self.template.body))
        # Ollama makes this one anew: without its functions, what was defined, and a word on missing keys.
        return "".join(parts) + execute(cut, {**values, **think}, {}, missing_is_nil=False)


def collated(messages: list[Message]) -> tuple[str, list[Message]]:
    """All system prompts in one, and the messages, of which such of the same role that follow each other are joined."""
    system = "\n\n".join(each.get("content") or "" for each in messages if each["role"] == "system")
    joined: list[Message] = []
    for each in messages:
        content = each.get("content") or ""
        if joined and joined[-1]["role"] == each["role"] != "tool":
            joined[-1] = {**joined[-1], "content": f"{joined[-1]['content']}\n\n{content}"}
        else:
            joined.append({**each, "content": content})
    return system, joined


def _message(message: Message) -> Struct:
    thinking = message.get("thinking") or message.get("reasoning_content") or ""
    calls = [_call(number, each) for number, each in enumerate(message.get("tool_calls") or [])]
    values = (
        message["role"],
        message["content"],
        thinking,
        (),
        calls or (),
        message.get("tool_name") or message.get("name") or "",
        message.get("tool_call_id") or "",
    )
    return Struct("message", dict(zip(_MESSAGE, values, strict=True)), {}, is_pointer=True)


def _call(number: int, call: dict[str, Any]) -> Struct:
    asked = call["function"]
    arguments = asked.get("arguments")
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    held = JsonMap(_floats(arguments or {}))
    held.nil = arguments is None
    function = Struct("call's function", {"Index": number, "Name": asked["name"], "Arguments": held}, {})
    return Struct("call", {"ID": call.get("id") or "", "Function": function}, {})


def _floats(value: Any) -> Any:
    """As Go unmarshals JSON: every number a float64."""
    if isinstance(value, dict):
        return {key: _floats(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_floats(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _tools(tools: list[dict[str, Any]] | None) -> JsonList:
    held = JsonList(_tool(each) for each in tools or [])
    held.nil = tools is None
    return held


def _tool(tool: dict[str, Any]) -> Struct:
    asked = tool["function"]
    given = asked.get("parameters") or {}
    properties = JsonMap((name, _property(each)) for name, each in (given.get("properties") or {}).items())
    properties.nil = given.get("properties") is None
    parameters = Struct(
        "parameters",
        {
            "Type": given.get("type") or "",
            "Defs": _floats(given.get("$defs")),
            "Items": _floats(given.get("items")),
            "Required": given.get("required") or (),
            "Properties": properties,
        },
        {
            "Type": ("type", False),
            "Defs": ("$defs", True),
            "Items": ("items", True),
            "Required": ("required", True),
            "Properties": ("properties", False),
        },
    )
    function = Struct(
        "tool's function",
        {"Name": asked["name"], "Description": asked.get("description") or "", "Parameters": parameters},
        {"Name": ("name", False), "Description": ("description", False), "Parameters": ("parameters", False)},
    )
    return Struct(
        "tool",
        {"Type": tool.get("type") or "", "Items": _floats(tool.get("items")), "Function": function},
        {"Type": ("type", False), "Items": ("items", True), "Function": ("function", False)},
        prints_json=True,
    )


def _property(given: dict[str, Any]) -> Struct:
    kinds = given.get("type") or []
    inner = given.get("properties")
    return Struct(
        "property",
        {
            "AnyOf": [_property(each) for each in given.get("anyOf") or []] or (),
            "Type": TypeNames([kinds] if isinstance(kinds, str) else kinds),
            "Items": _floats(given.get("items")),
            "Description": given.get("description") or "",
            "Enum": _floats(given.get("enum")) or (),
            "Properties": None if inner is None else Ordered((name, _property(each)) for name, each in inner.items()),
            "Required": given.get("required") or (),
        },
        {
            name: (name[0].lower() + name[1:], True)
            for name in ("AnyOf", "Type", "Items", "Description", "Enum", "Properties", "Required")
        },
    )


def _names(body: Body) -> Iterator[str]:
    """Every field and variable that is named, as Ollama looks for them: not within `(…).Field`."""
    for node in body:
        if isinstance(node, Do):
            yield from _pipe_names(node.pipe)
        elif isinstance(node, Call):
            if node.pipe is None:
                raise GoError(f"Ollama takes no {{{{ template {node.name!r} }}}} without a value")
            yield from _pipe_names(node.pipe)
        elif isinstance(node, BranchNode):
            yield from _pipe_names(node.pipe)
            yield from _names(node.body)
            yield from _names(node.otherwise or ())


def _pipe_names(pipe: Pipe) -> Iterator[str]:
    for operand in (operand for command in pipe.commands for operand in command.args):
        if isinstance(operand, FieldNode):
            yield from operand.path
        elif isinstance(operand, Variable):
            yield from (operand.name, *operand.path)
        elif isinstance(operand, Pipe):
            yield from _pipe_names(operand)


class _Cut:
    """Takes out of a tree all that follows the first `.Response`, as Ollama's deleteNode does."""

    def __init__(self) -> None:
        self.is_cut = False

    def body(self, body: Body) -> Body:
        return tuple(node for node in map(self._node, body) if node is not None)

    def _node(self, node: Node) -> Node | None:
        if self.is_cut:
            return None
        if isinstance(node, Do):
            pipe = self._pipe(node.pipe)
            return None if pipe is None else Do(pipe)
        if isinstance(node, BranchNode):
            body = self.body(node.body)
            if node.otherwise is None:
                return replace(node, body=body)
            if self.is_cut:
                raise GoError("Ollama cannot cut at a .Response with an {{ else }} behind it")
            return replace(node, body=body, otherwise=self.body(node.otherwise))
        return node

    def _pipe(self, pipe: Pipe) -> Pipe | None:
        commands = []
        for command in pipe.commands:
            args = tuple(each for each in map(self._operand, command.args) if each is not None)
            if not args:
                return None
            commands.append(Command(args))
        return replace(pipe, commands=tuple(commands))

    def _operand(self, operand: Operand) -> Operand | None:
        if isinstance(operand, FieldNode) and "Response" in operand.path:
            self.is_cut = True
            return operand
        if self.is_cut:
            return None
        return self._pipe(operand) if isinstance(operand, Pipe) else operand
