"""What a request wants of a chat template beside its messages: variables of its own, how much to think, who speaks.

A template passes over what it does not know; here that is refused, by name, with what it does know.
"""

from collections.abc import Iterator, Mapping, Set
from functools import lru_cache
from typing import Any

from jinja2 import meta, nodes
from transformers.utils import chat_template_utils

from core.data.conversation import Message
from core.errors import AskError

# What is given with every rendering, and is not for a request to change.
_GIVEN = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"}
    | {f"{name}_token" for name in ("bos", "eos", "unk", "pad", "sep", "cls", "mask")}
)
# Switches by which templates turn thinking on and off, in whole.
_SWITCHES = ("enable_thinking", "thinking")
VARIABLES, EFFORT = "chat_template_kwargs", "reasoning_effort"


def wanted_of_template(tokenizer: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The template's variables as `asked` for: its `chat_template_kwargs`, and `reasoning_effort`. Raises AskError."""
    known = (
        _variables(tokenizer.get_chat_template()) - _GIVEN - set(tokenizer.special_tokens_map) if asked else frozenset()
    )
    wanted = dict(asked.get(VARIABLES) or {})
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise AskError(
            f"This model's chat template has no {unknown[0]!r}; it has {_listed(known)}.",
            f"{VARIABLES}.{unknown[0]}",
            "unsupported_parameter",
        )
    effort = asked.get(EFFORT)
    return wanted if effort is None else {**_thinking(str(effort), known), **wanted}


def _thinking(effort: str, known: Set[str]) -> dict[str, Any]:
    if EFFORT in known:
        return {EFFORT: effort}
    switch = next((name for name in _SWITCHES if name in known), None)
    if switch is None:
        raise AskError(f"This model's chat template has no {EFFORT}. Leave it out.", EFFORT, "unsupported_parameter")
    if effort not in ("none", "medium"):
        raise AskError(
            f"This model's chat template only turns thinking off ({EFFORT} none) or on (medium); {effort!r} it does "
            "not know.",
            EFFORT,
            "unsupported_value",
        )
    return {switch: effort != "none"}


def refuse_names(tokenizer: Any, messages: list[Message], wanted: dict[str, Any]) -> None:
    """Raise AskError where speakers of one role are told apart by `name`, and the template leaves the names out."""
    names: dict[str, set[str]] = {}
    for message in messages:
        names.setdefault(message["role"], set()).add(message.get("name", ""))
    if all(len(each) == 1 for each in names.values()):
        return  # a name that all have tells nobody apart

    def text(talk: list[Message]) -> str:
        return str(tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True, **wanted))

    if text(messages) == text([{key: each[key] for key in each if key != "name"} for each in messages]):
        raise AskError(
            "This model's chat template does not support names. Put the name into the message text.",
            "messages",
            "unsupported_parameter",
        )


@lru_cache(maxsize=32)
def _variables(template: str) -> frozenset[str]:
    """The names that a template looks up before it makes them, if it makes them at all."""
    environment = chat_template_utils._compile_jinja_template(template).environment
    tree = environment.parse(template)
    first: dict[str, str] = {}
    for name in _names(tree):
        first.setdefault(name.name, name.ctx)
    handed = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "param"}
    return frozenset(name for name in meta.find_undeclared_variables(tree) - handed if first.get(name) == "load")


def _names(node: nodes.Node) -> Iterator[nodes.Name]:
    """The names in a template in the order in which they are met: what is assigned is looked up before."""
    if isinstance(node, nodes.Name):
        yield node
    inner = [node.node, node.target] if isinstance(node, nodes.Assign) else node.iter_child_nodes()
    for each in inner:
        yield from _names(each)


def _listed(known: Set[str]) -> str:
    return ", ".join(sorted(known)) or "none that can be set"
