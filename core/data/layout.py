"""A conversation to text, with the characters that count in the loss: the chat template's work, before any token.

Three ways, tried in this order, and a refusal that says why: `generation` marks in the template; the training
template that trl ships for a known family; differences of prefixes, each proved to be a prefix of the whole.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Any

from core.data.conversation import Conversation, Message
from core.errors import ModelError
from core.recipe import DataSettings
from core.telling import telling_line
from core.template_budget import TooMuch
from core.templates import TEMPLATE_ERRORS, bound_templates
from core.workspace import PRESETS

NOT_SURE = (
    "the model's chat template writes earlier turns differently once more turns follow, so it is not sure which "
    "tokens are the reply; choose the instruct version of a known family, or set data.template"
)


# Two threads that render with one template would find each other's marks, or none: transformers 5.23 keeps the tracker
# of `generation` blocks with the compiled template, which it caches by its text.
_RENDERING = threading.Lock()


class Unrenderable(Exception):
    """Why one row cannot be laid out for this model. `str(error)` goes on from "Row 3 is not used: "."""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of a layout that count in the loss, by `weight`; `message` is the reply they render."""

    start: int
    end: int
    message: int | None
    weight: float


@dataclass(frozen=True, slots=True)
class Layout:
    """What the template makes of a conversation. Spans do not overlap and come in order."""

    row: int
    text: str
    spans: list[Span]


class Template:
    """The template that a tokenizer trains with, and what of its text counts in the loss.

    The tokenizer is given the template, and is saved with the adapter, so a chat sees the very same one.
    """

    def __init__(self, tokenizer: Any, settings: DataSettings) -> None:
        bound_templates()
        self.tokenizer, self.train_on = tokenizer, settings.train_on
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.source = _give_template(tokenizer, settings.template)
        self.marked = has_marks(tokenizer.chat_template)
        self._special = tokenizer.special_tokens_map
        self._begin = _begin_of_text(tokenizer)
        self.in_parts = False
        self.in_parts = self._wants_parts()

    def lay_out(self, conversation: Conversation) -> Layout:
        """The text of one conversation and its spans. Raises Unrenderable where no mask is sure."""
        if conversation.text is not None:
            text = self._begin + conversation.text + (self.tokenizer.eos_token or "")
            return Layout(conversation.row, text, [Span(0, len(text), None, 1.0)])
        messages, tools = conversation.messages, conversation.tools
        text, spans = self._by_marks(messages, tools) if self.marked else self._by_prefixes(messages, tools)
        if self.train_on == "everything":
            return Layout(conversation.row, text, _around(spans, len(text)))
        if self.train_on == "last_reply":
            spans = spans[-1:]
        return Layout(conversation.row, text, [span for span in spans if span.weight > 0 and span.end > span.start])

    def _by_marks(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> tuple[str, list[Span]]:
        text, found = self._apply(messages, tools, marks=True)
        places = [(int(start), int(end)) for start, end in found if end > start]
        joined = [list(place) for place in places[:1]]
        for start, end in places[1:]:
            if start == joined[-1][1]:  # two marks around one reply, such as its reasoning and its text
                joined[-1][1] = end
            else:
                joined.append([start, end])
        replies = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if len(joined) == len(replies):
            pairs = zip(joined, replies, strict=True)
            return text, [Span(start, end, reply, _weight(messages[reply])) for (start, end), reply in pairs]
        if any(_weight(messages[reply]) != 1.0 for reply in replies):
            raise Unrenderable(
                f"the template marks {len(joined)} places for {len(replies)} replies, so it is not sure which of them "
                "has the weight"
            )
        return text, [Span(start, end, None, 1.0) for start, end in joined]

    def _by_prefixes(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> tuple[str, list[Span]]:
        whole, _ = self._apply(messages, tools)
        spans = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before, _ = self._apply(messages[:index], tools, prompt=True)
            last = index + 1 == len(messages)
            after = whole if last else self._apply(messages[: index + 1], tools)[0]
            if not whole.startswith(before) or not whole.startswith(after):
                raise Unrenderable(NOT_SURE)
            spans.append(Span(len(before), len(after), index, _weight(message)))
        return whole, spans

    def _wants_parts(self) -> bool:
        """Whether the template takes content only as a list of parts, as those of models that see images do."""
        if self._says_the_reply():
            return False
        self.in_parts = True
        return self._says_the_reply()

    def _says_the_reply(self) -> bool:
        talk = [{"role": "user", "content": "sesame"}, {"role": "assistant", "content": "barley"}]
        try:
            text, _ = self._apply(talk, None)
        except Unrenderable:
            return False
        return "barley" in text and "'text'" not in text  # the list itself, printed, is not its words

    def _apply(
        self, messages: list[Message], tools: list[dict[str, Any]] | None, marks: bool = False, prompt: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """The template's text and its marked places. Raises Unrenderable with the template's own words."""
        from transformers.utils.chat_template_utils import render_jinja_template

        if self.in_parts:
            messages = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]
        try:
            with _RENDERING:
                texts, places = render_jinja_template(
                    [messages],
                    tools=tools,
                    chat_template=self.tokenizer.chat_template,
                    return_assistant_tokens_mask=marks,
                    add_generation_prompt=prompt,
                    **self._special,
                )
        except TooMuch as error:  # so it would be with every row, each after a while
            raise ModelError(
                f"This model's chat template cannot be used: {error}. Set data.template, or choose another model."
            ) from None
        except TEMPLATE_ERRORS as error:
            said = telling_line(error)
            raise Unrenderable(f"the model's chat template refuses it ({said})") from None
        return texts[0], places[0] if marks else []


def has_marks(template: str) -> bool:
    """Whether a chat template marks the replies with `generation`."""
    return re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None


def own_template(name: str) -> str:
    """The text of a template that Nibble ships, by its name in data.template."""
    return (PRESETS / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def _give_template(tokenizer: Any, wanted: str) -> str:
    """Put the template to train with into `tokenizer`; returns where it came from, in words."""
    from trl.chat_template_utils import get_training_chat_template

    if isinstance(tokenizer.chat_template, dict):  # several, by name; the others are for tools and retrieval
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    if wanted != "auto":
        tokenizer.chat_template = own_template(wanted)
        return f"the {wanted} template, as data.template asks"
    if not tokenizer.chat_template:
        tokenizer.chat_template = own_template("guanaco")
        return "Guanaco's template, for this base model has none of its own"
    if has_marks(tokenizer.chat_template):
        return "the model's own template, which marks the replies"
    try:
        template = get_training_chat_template(tokenizer)
    except ValueError:
        return "the model's own template, replies found by differences of prefixes"
    tokenizer.chat_template = template or tokenizer.chat_template
    return "the model's own template, with trl's marks around the replies"


def _begin_of_text(tokenizer: Any) -> str:
    """The token that this tokenizer puts before a plain text, as text; empty where it puts none."""
    ids = tokenizer("a").input_ids
    return tokenizer.bos_token if ids and tokenizer.bos_token and ids[0] == tokenizer.bos_token_id else ""


def _weight(message: Message) -> float:
    return float(message.get("weight", 1.0))


def _around(spans: list[Span], length: int) -> list[Span]:
    """Everything, but what a message of another weight than 1 renders to."""
    covered: list[Span] = []
    at = 0
    for span in spans:
        if span.weight == 1.0:
            continue
        if span.start > at:
            covered.append(Span(at, span.start, None, 1.0))
        if span.weight > 0:
            covered.append(span)
        at = span.end
    if at < length:
        covered.append(Span(at, length, None, 1.0))
    return covered


def require_template(tokenizer: Any, settings: DataSettings) -> Template:
    """The template, proved on a short conversation to be usable at all. Raises ModelError where it is not."""
    template = Template(tokenizer, settings)
    talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello to you"}]
    try:
        layout = template.lay_out(Conversation(1, [*talk, talk[0], {"role": "assistant", "content": "And again"}]))
    except Unrenderable as error:
        raise ModelError(f"This model cannot be trained to chat with its own template: {error}.") from None
    if not layout.spans:
        raise ModelError("This model's chat template leaves out what the assistant says. Set data.template.")
    return template
