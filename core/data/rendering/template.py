"""A conversation to text, with the characters that count in the loss: the chat template's work, before any token.

A reply's place is what stands between the text that asks for it and the text that ends with it, both as the template
renders them. Where the template marks its replies, and trying has proved the marks (reply_spans.py), one
rendering shows all places. Else each reply is compared with the whole; one that the whole has in other words, since
the template writes earlier turns differently, is learned in a text of its own, as it was when it was the newest.
"""

from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

from core.data.conversation import Conversation, Message
from core.data.formats.weights import DETAIL_KEY, trained_characters
from core.data.rendering.chat_template import ChatTemplate, Tools, Unrenderable
from core.data.rendering.generation_prompt import asking_of, fitted
from core.data.rendering.reply_spans import Lead, joined, leads_of, stops_of, tail_of
from core.data.rendering.special_tokens import Signs
from core.data.rendering.training_template import give_template, own_template
from core.errors import ModelError
from core.settings import DataSettings
from core.untrusted.chat_templates import bound_templates
from core.untrusted.template_marks import has_marks

__all__ = ["TextLayout", "Span", "Template", "Unrenderable", "own_template", "require_template"]

NOT_SURE = (
    "the model's chat template renders this conversation differently once it has a reply, so the reply's tokens "
    "cannot be identified; choose the instruct version of a known family, or set data.template"
)
_ANYTHING = "ζreply"
_IN_WORDS = {
    "fitted": "; its generation prompt is fitted to its replies (data.generation_prompt)",
    "continued": "; each reply is trained after its full generation prompt (data.generation_prompt)",
}
# How a chat asks for what is learned: as the template asks; by a prompt cut to what its replies begin with; by the
# whole prompt, to which the replies were fitted; otherwise than the text that it is learned from.
Asked = Literal["as it is", "fitted", "continued", "otherwise"]


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of a layout that count in the loss, by `weight`; `message` is the reply they render."""

    start: int
    end: int
    message: int | None
    weight: float


@dataclass(frozen=True, slots=True)
class TextLayout:
    """What the template makes of a conversation. Spans do not overlap and come in order."""

    row: int
    text: str
    spans: list[Span]
    asked: Asked = "as it is"


@dataclass(frozen=True, slots=True)
class _Reply:
    """One reply: the text that it stands in, where, and whether that is the whole conversation's."""

    text: str
    span: Span
    in_whole: bool


class Template:
    """The template that a tokenizer trains with, and what of its text counts in the loss.

    The tokenizer is given the template, and is saved with the adapter, so a chat sees the very same one. `asked` says
    how it asks for a reply, `dropped` what its makers' generation prompt had beyond that, `in_parts`
    whether it takes content as a list of parts.
    """

    def __init__(self, tokenizer: Any, settings: DataSettings) -> None:
        bound_templates()
        self.tokenizer, self.train_on = tokenizer, settings.train_on
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.source = give_template(tokenizer, settings.template)
        self._begin = _begin_of_text(tokenizer)
        self._signs = Signs(tokenizer.get_added_vocab(), tokenizer.chat_template)
        self._template = ChatTemplate(tokenizer.chat_template, tokenizer.special_tokens_map)
        self._tail = tail_of(self._template, self._signs)
        self._asking = asking_of(self._template, self._signs, self._tail)
        self.dropped = next(filter(None, [*self._asking.gaps.values(), *self._asking.missing.values()]), "")
        self.asked: Asked = self._agree(settings.generation_prompt)
        self.source += _IN_WORDS.get(self.asked, "")
        tokenizer.chat_template = self._template.source
        leads = leads_of(self._template) if has_marks(self._template.source) and self.asked != "continued" else None
        self.marked, self._leads = leads is not None, leads or {}
        self._stops = stops_of(self._template, self._signs) if leads is None else {}
        self._template.tried()
        self.in_parts = self._template.in_parts
        if leads is None and has_marks(self._template.source):
            self.source += "; replies are searched for, as the markers do not work in every conversation"

    def lay_outs(self, conversation: Conversation) -> list[TextLayout]:
        """The text of one conversation and its spans; several, where a reply needs a text of its own.

        Raises Unrenderable where no mask is sure.
        """
        row = conversation.row
        if conversation.text is not None:
            text = self._begin + conversation.text + (self.tokenizer.eos_token or "")
            return [TextLayout(row, text, [Span(0, len(text), None, 1.0)])]
        messages, tools = conversation.messages, conversation.tools
        if self.train_on == "everything":
            return [self._everything(row, messages, tools)]
        layouts = self._replies(row, messages, tools)
        if not any(DETAIL_KEY in message for message in messages):
            return layouts
        parts = ([part for part in _unmasked(each.spans, each.text, messages) if part.weight > 0] for each in layouts)
        return [replace(layout, spans=spans) for layout, spans in zip(layouts, parts, strict=True)]

    def _replies(self, row: int, messages: list[Message], tools: Tools) -> list[TextLayout]:
        """The layouts in which the replies count: each that needs it in a text of its own, the others in the whole."""
        found = self._by_marks(row, messages, tools) if self.marked else None
        if found is not None:
            return [found]
        indices = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        whole = self._template.text(messages, tools)
        if self.train_on == "last_reply":
            indices = indices[-1:]
        replies = [self._reply(messages, tools, index, whole) for index in indices if _weight(messages[index]) > 0]
        if replies and replies[-1].in_whole and replies[-1].span.end > len(whole):
            whole = replies[-1].text
        layouts = [TextLayout(row, each.text, [each.span], self.asked) for each in replies if not each.in_whole]
        if len(layouts) < len(replies) or not replies:
            spans = [each.span for each in replies if each.in_whole and each.span.end > each.span.start]
            layouts.append(TextLayout(row, whole, spans, self.asked))
        return layouts

    def _agree(self, wanted: str) -> Asked:
        """Have what is asked and what is learned agree, as data.generation_prompt says."""
        if self._asking.is_answered:
            return "as it is"
        keeps = wanted == "continued" or not self._asking.keeps_its_role
        only_missing = replace(self._asking, gaps={False: "", True: ""})
        changed = fitted(self._template, only_missing if keeps else self._asking)
        if changed is not None:
            self._template = changed
            self._asking = asking_of(changed, self._signs, self._tail)
        if any(self._asking.gaps.values()):
            return "continued"
        return "fitted" if changed is not None else "as it is"

    def _everything(self, row: int, messages: list[Message], tools: Tools) -> TextLayout:
        """All of the text, but what a message of another weight than 1 renders to."""
        text = self._template.text(messages, tools)
        asked: Asked = "otherwise" if self.asked == "continued" else self.asked
        indices = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if all(_weight(messages[index]) == 1.0 and DETAIL_KEY not in messages[index] for index in indices):
            return TextLayout(row, text, [Span(0, len(text), None, 1.0)], asked)
        marked = self._by_marks(row, messages, tools, all_weights=True) if self.marked else None
        if marked is not None:
            return TextLayout(row, text, _around(_unmasked(marked.spans, text, messages), len(text)), asked)
        replies = [self._reply(messages, tools, index, text) for index in indices]
        if not all(each.in_whole for each in replies):
            raise Unrenderable("the template renders earlier replies differently, so weights cannot be placed")
        spans = _unmasked([each.span for each in replies], text, messages)
        return TextLayout(row, text, _around(spans, len(text)), asked)

    def _by_marks(
        self, row: int, messages: list[Message], tools: Tools, all_weights: bool = False
    ) -> TextLayout | None:
        """By the marks; None where they do not show each reply, so that it must be looked for."""
        text, marked = self._template.marked(messages, tools)
        places = joined(marked)
        replies = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if len(places) != len(replies):
            return None
        spans = []
        for (start, end), index in zip(places, replies, strict=True):
            before = messages[index - 1]["role"] if index else "user"
            lead = self._leads.get(before) or self._leads.get("user", Lead())
            if lead.inside and not text.startswith(lead.inside, start):
                return None
            if lead.before and not text.startswith(lead.before, start - len(lead.before)):
                return None
            start += len(lead.inside) - len(lead.before)
            spans.append(Span(start, end, index, _weight(messages[index])))
        if self.train_on == "last_reply":
            spans = spans[-1:]
        kept = [span for span in spans if all_weights or (span.weight > 0 and span.end > span.start)]
        return TextLayout(row, text, kept, self.asked)

    def _reply(self, messages: list[Message], tools: Tools, index: int, whole: str) -> _Reply:
        """The reply `index`, by the text that asks for it and the text that ends with it."""
        last = index + 1 == len(messages)
        text = whole if last else self._template.text(messages[: index + 1], tools)
        weight = _weight(messages[index])
        asked = self._ask(messages[:index], tools)
        if asked is not None and not text.startswith(asked):
            text = asked + self._behind(asked, text, messages, tools, index)
            return _Reply(text, Span(len(asked), len(text), index, weight), False)
        start = len(asked) if asked is not None else self._start(text, messages, tools, index)
        end = len(text) - (len(self._tail) if not last and text.endswith(self._tail) else 0)
        in_whole = whole.startswith(text[:end])
        stop = self._stops.get(bool(messages[index].get("tool_calls")))
        if stop and in_whole and not last:
            end = self._signs.end_of_next(whole, end)
        elif stop:
            text += stop
        return _Reply(text, Span(start, end if in_whole and not last else len(text), index, weight), in_whole)

    def _behind(self, asked: str, text: str, messages: list[Message], tools: Tools, index: int) -> str:
        """What follows `asked` where `text`, which ends with the reply, does not go on from it."""
        if self.asked == "continued":
            after_tool = bool(index) and messages[index - 1]["role"] == "tool"
            behind = self._asking.reply_behind(asked, text, messages[index], after_tool)
            if behind is not None:
                return behind
        return text[self._start(text, messages, tools, index) :]

    def _ask(self, messages: list[Message], tools: Tools) -> str | None:
        """The text that asks for a reply to `messages`; None where no chat can begin so."""
        if not messages:
            return None
        try:
            return self._template.text(messages, tools, ask=True)
        except Unrenderable:
            return None

    def _start(self, text: str, messages: list[Message], tools: Tools, index: int) -> int:
        """Where the reply `index` starts in `text`: other words are put in its place, behind the mark of its role."""
        other = {key: value for key, value in messages[index].items() if key != "reasoning_content"}
        tried = self._template.text([*messages[:index], {**other, "content": _ANYTHING}], tools)
        place = tried.rfind(_ANYTHING)
        head = tried[: max(0, place)].removesuffix(self._asking.lead)
        prompt = self._asking.prompts.get(bool(index) and messages[index - 1]["role"] == "tool")
        if place < 0 or not text.startswith(head):
            raise Unrenderable(NOT_SURE)
        if prompt is None or not (prompt == "" or any(head.endswith(mark) for mark in self._signs.beginnings(prompt))):
            raise Unrenderable(NOT_SURE)
        return len(head)


def _begin_of_text(tokenizer: Any) -> str:
    """The token that this tokenizer puts before a plain text, as text; empty where it puts none."""
    ids = tokenizer("a").input_ids
    return tokenizer.bos_token if ids and tokenizer.bos_token and ids[0] == tokenizer.bos_token_id else ""


def _weight(message: Message) -> float:
    return float(message.get("weight", 1.0))


def _unmasked(spans: list[Span], text: str, messages: list[Message]) -> list[Span]:
    """The spans, cut where a reply says that part of it is not trained on; those parts have a weight of 0."""
    return [part for span in spans for part in _parts(span, text, messages)]


def _parts(span: Span, text: str, messages: list[Message]) -> list[Span]:
    """The span in parts, those with a weight of 0 that its reply says are not trained on. Raises Unrenderable."""
    message = messages[span.message] if span.message is not None else {}
    if DETAIL_KEY not in message:
        return [span]
    content = message["content"]
    said = content.strip()
    start = text.rfind(said, span.start, span.end)
    if start < 0:
        raise Unrenderable(f"the template writes the reply differently, so its {DETAIL_KEY!r} does not match")
    lead = len(content) - len(content.lstrip())
    counts = trained_characters(message[DETAIL_KEY], len(content))[lead : lead + len(said)]
    parts, at = [], span.start
    for trained, run in groupby(enumerate(counts, start=start), key=lambda each: each[1]):
        places = [place for place, _ in run]
        if not trained:
            parts.append(Span(at, places[0], span.message, span.weight))
            at = places[-1] + 1
            parts.append(Span(places[0], at, span.message, 0.0))
    parts.append(Span(at, span.end, span.message, span.weight))
    return [part for part in parts if part.end > part.start]


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
        layouts = template.lay_outs(Conversation(1, [*talk, talk[0], {"role": "assistant", "content": "And again"}]))
    except Unrenderable as error:
        raise ModelError(f"This model cannot be trained to chat with its own template: {error}.") from None
    if not any(layout.spans for layout in layouts):
        raise ModelError("This model's chat template omits the assistant's text. Set data.template.")
    return template
