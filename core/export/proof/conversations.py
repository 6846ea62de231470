"""The conversations that an export is proved with: the run's own, held-out ones first, and plain ones of other shapes.

They go through an export as messages, not as tokens: what is proved is what a stranger's program makes of them.
"""

from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from core.data.cache import PreparedCache
from core.data.conversation import Message
from core.data.dataset import load
from core.data.formats.valid import without_system
from core.data.prepared import prepare_data
from core.data.split import split_rows
from core.errors import DataError, RunError
from core.export.shared.source import ExportSource

# So many of the data are laid out and split; far fewer are answered.
MOST, MOST_CHARACTERS = 100, 1_000_000
ONE_TURN, TURNS, SYSTEM, TOOLS, TEXT = "one turn", "several turns", "a system prompt", "tools", "plain text"
_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
# White space at both ends and within, letters of several scripts and in both of Unicode's forms, what looks like code.
_ODD = '\n  Thé  Cafe\u0301 — 日本, Привет, 🙂\r\n\tif a < b && c:  "it\'s" \\n {{ x }} <b>12345.50</b>\n\n '


@dataclass(frozen=True)
class ProofConversation:
    """One conversation: messages (and tools), or plain text. `name` is for a person: 'row 3', 'a plain one'.

    One that is not `is_answered` is laid out and split, no more.
    """

    name: str
    shape: str
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    text: str | None = None
    is_answered: bool = True


@dataclass(frozen=True)
class ProofConversations:
    """What to prove with, in the order in which it is answered, and `source`: where it is from, in words."""

    conversations: list[ProofConversation]
    source: str


def conversations_of(source: ExportSource, tokenizer: Any, answered: int) -> ProofConversations:
    """Held-out conversations, else ones trained on, and plain ones of each shape that they lack.

    Among the first `answered` are both. `tokenizer` gets the template that the run trains with.
    """
    try:
        own, origin = _own(source, tokenizer)
    except (DataError, RunError):
        own, origin = [], "plain questions"
    shapes = {each.shape for each in own if each.is_answered}
    system = source.recipe.data.system
    plain = [each for each in _plain() if each.shape not in shapes]
    if system != "keep":
        plain = [replace(each, messages=without_system(each.messages, system)) for each in plain]
    first = min(max(answered - len(plain), answered // 2), sum(each.is_answered for each in own))
    if own and plain:
        origin += ", and plain ones of shapes that they lack"
    texts: list[Message] = [{"role": "user", "content": _ODD}, {"role": "assistant", "content": _ODD[::-1]}]
    odd = ProofConversation("one of odd white space and letters", ONE_TURN, texts)
    return ProofConversations([*own[:first], *plain, odd, *own[first:]], origin)


def _own(source: ExportSource, tokenizer: Any) -> tuple[list[ProofConversation], str]:
    """Of the run's data; rows that were trained on are answered only where none were held out."""
    recipe, file = source.recipe, source.run.dataset_file()
    prepared = prepare_data(file, recipe.data, tokenizer, PreparedCache.beside(file))
    train, held = split_rows(prepared.keys, prepared.named, recipe.data, recipe.train.seed)
    rows = prepared.rendered.usable.rows
    answered = {rows[index] for index in (held or train)[: 4 * MOST]}
    others = {rows[index] for index in train[:MOST]} if held else set()
    found: list[ProofConversation] = []
    for each in load(file, recipe.data).usable:
        if each.row in answered or each.row in others:
            shape = shape_of(each.messages, each.tools) if each.text is None else TEXT
            about = (each.messages, each.tools, each.text, each.row in answered)
            found.append(ProofConversation(f"row {each.row}", shape, *about))
    bounded = _bounded(sorted(found, key=lambda conversation: not conversation.is_answered))
    return _mixed(bounded), "held-out rows" if held else "rows trained on, for none were held out"


def _bounded(conversations: list[ProofConversation]) -> list[ProofConversation]:
    """The first of them, no two the same, as many as are laid out in moments."""
    kept: dict[str, ProofConversation] = {}
    size = 0
    for conversation in conversations:
        said = repr((conversation.text, conversation.messages, conversation.tools))
        if len(kept) == MOST or size > MOST_CHARACTERS:
            break
        size += len(said) * (said not in kept)
        kept.setdefault(said, conversation)
    return list(kept.values())


def shape_of(messages: list[Message], tools: list[dict[str, Any]] | None) -> str:
    """What a template must be able to do for such a conversation."""
    if tools or any(message.get("tool_calls") or message["role"] == "tool" for message in messages):
        return TOOLS
    if any(message["role"] == "system" for message in messages):
        return SYSTEM
    return TURNS if sum(message["role"] == "user" for message in messages) > 1 else ONE_TURN


def _mixed(conversations: list[ProofConversation]) -> list[ProofConversation]:
    """One of each shape in turn, as long as there are any; those that are answered first."""
    by_shape: dict[str, list[ProofConversation]] = {}
    for conversation in conversations:
        by_shape.setdefault(conversation.shape, []).append(conversation)
    mixed = [
        conversation for some in zip_longest(*by_shape.values()) for conversation in some if conversation is not None
    ]
    return sorted(mixed, key=lambda conversation: not conversation.is_answered)


def _plain() -> list[ProofConversation]:
    def said(*texts: str) -> list[Message]:
        return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]

    system = {"role": "system", "content": "You answer briefly."}
    call = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Oslo"}}}
    asked = said("What is the weather in Oslo?", "")
    asked[1] |= {"tool_calls": [call]}
    result = {"role": "tool", "name": "weather", "content": '{"sky": "clear"}'}
    single = [
        ("Hello! Who are you?", "I am a small model."),
        ("What is the opposite of hot?", "Cold."),
        ("Name three colours.", "Red, green, blue."),
        ("How many days has a week?", "Seven."),
    ]
    return [
        *(ProofConversation("a plain one", ONE_TURN, said(*each)) for each in single),
        ProofConversation(
            "a plain one", TURNS, said("Name a colour.", "Red.", "Another one?", "Blue.", "And a last one.", "Green.")
        ),
        ProofConversation("a plain one", SYSTEM, [system, *said("Is water wet?", "Yes.")]),
        ProofConversation("a plain one", TOOLS, said("What can you look up?", "The weather of a town."), [_WEATHER]),
        ProofConversation(
            "a plain one", TOOLS, [*asked, result, {"role": "assistant", "content": "It is clear."}], [_WEATHER]
        ),
    ]
