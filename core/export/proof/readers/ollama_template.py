"""What Ollama makes of a conversation with a Modelfile's TEMPLATE, after its template/template.go.

Nibble writes templates over `.Messages`, without tools. Others, of one `.Prompt` or with `.Tools`, are not read here.
"""

from collections.abc import Iterator
from typing import Any

from core.export.proof.gotemplate import GoError, execute, parse
from core.export.proof.gotemplate.functions import LAZY, Functions, ollama
from core.export.proof.gotemplate.parser import Body, BranchNode, FieldNode, Pipe, Variable

Message = dict[str, Any]


class OllamaTemplate:
    """A TEMPLATE as `ollama create` reads it. Raises GoError where that refuses it."""

    def __init__(self, source: str, functions: Functions | None = None) -> None:
        self.functions = ollama() if functions is None else functions
        self.template = parse(source)
        unknown = self.template.functions - {*self.functions, *LAZY}
        if unknown:
            raise GoError(f"it calls {', '.join(sorted(unknown))}, and such are not known here")
        bodies = [self.template.body, *self.template.defined.values()]
        self.names = {name.lower() for body in bodies for name in _names(body)}
        if "messages" not in self.names:
            raise GoError("it does not speak of .Messages, and such are not read here")
        if "tools" in self.names or "toolcalls" in self.names:
            raise GoError("it speaks of tools, and such are not read here")

    def render(self, messages: list[Message]) -> str:
        """The prompt for the reply to `messages`. Raises GoError where Ollama fails."""
        thinks = "thinking" in self.names  # Ollama then asks for thoughts unless it is told not to
        system, joined = collated(messages)
        values: dict[str, Any] = {"System": system, "Messages": [_message(each) for each in joined], "Response": ""}
        values |= {"Think": thinks, "ThinkLevel": "medium" if thinks else "", "IsThinkSet": thinks}
        return execute(self.template, values, self.functions)


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


def _message(message: Message) -> Message:
    thinking = message.get("thinking") or message.get("reasoning_content") or ""
    return {"Role": message["role"], "Content": message["content"], "Thinking": thinking}


def _names(body: Body) -> Iterator[str]:
    """Every field and variable that is named, as Ollama looks for them: not within `(…).Field`."""
    for node in body:
        if isinstance(node, Pipe):
            yield from _pipe_names(node)
        elif isinstance(node, BranchNode):
            yield from _pipe_names(node.pipe)
            yield from _names(node.body)
            yield from _names(node.otherwise)
        elif not isinstance(node, str):
            if node.pipe is None:
                raise GoError(f"Ollama takes no {{{{ template {node.name!r} }}}} without a value")
            yield from _pipe_names(node.pipe)


def _pipe_names(pipe: Pipe) -> Iterator[str]:
    for operand in pipe.args:
        if isinstance(operand, FieldNode):
            yield from operand.path
        elif isinstance(operand, Variable):
            yield from (operand.name, *operand.path)
        elif isinstance(operand, Pipe):
            yield from _pipe_names(operand)
