"""Messages through a chat template: the text that it makes of them, the places that it marks, its refusals."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

from core.data.conversation import Message
from core.errors import ModelError
from core.text.library_errors import telling_line
from core.untrusted.chat_templates import TEMPLATE_ERRORS
from core.untrusted.template_limits import TooMuch

# For all that is tried with a template before it is used; the usual takes a fraction of a second.
TRIAL_SECONDS = 60.0
Tools = list[dict[str, Any]] | None
# Two threads that render with one template would find each other's marks, or none: transformers 5.23 keeps the tracker
# of `generation` blocks with the compiled template, which it caches by its text.
_RENDERING = threading.Lock()
_THOUGHT = re.compile(r"\s*(?:<think>)?(.*?)</think>\s*", re.DOTALL)
_TAGGED = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)


class Unrenderable(Exception):
    """Why one row cannot be laid out for this model. `str(error)` goes on from "Row 3 is not used: "."""


class ChatTemplate:
    """A template's text with the special tokens of its tokenizer."""

    def __init__(self, text: str, special: dict[str, Any], until: float | None = None) -> None:
        """`until`: when trying it must be done, as `time.monotonic` tells it; `tried` ends that."""
        self.source, self._special = text, special
        self._until = time.monotonic() + TRIAL_SECONDS if until is None else until
        self.in_parts = False
        self.in_parts = self._wants_parts()

    def with_source(self, text: str) -> ChatTemplate:
        """Another template for the same tokenizer."""
        return ChatTemplate(text, self._special, self._until)

    def tried(self) -> None:
        """From now on it may take as long as it needs: each conversation has a bound of its own."""
        self._until = float("inf")

    def text(self, messages: list[Message], tools: Tools = None, ask: bool = False) -> str:
        """The text of `messages`; with `ask`, ready for a reply. Raises Unrenderable with the template's own words."""
        return self._apply(messages, tools, ask=ask)[0]

    def marked(self, messages: list[Message], tools: Tools = None) -> tuple[str, list[tuple[int, int]]]:
        """The text and its marked places, in characters [start, end). Raises Unrenderable."""
        return self._apply(messages, tools, marks=True)

    def _wants_parts(self) -> bool:
        """Whether the template takes content only as a list of parts, as those of models that see images do."""
        if self._says_the_reply():
            return False
        self.in_parts = True
        return self._says_the_reply()

    def _says_the_reply(self) -> bool:
        talk = [{"role": "user", "content": "sesame"}, {"role": "assistant", "content": "barley"}]
        try:
            text = self.text(talk)
        except Unrenderable:
            return False
        return "barley" in text and "'text'" not in text  # the list itself, printed, is not its words

    def _apply(
        self, messages: list[Message], tools: Tools, marks: bool = False, ask: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        if time.monotonic() > self._until:
            raise ModelError(
                f"This model's chat template cannot be used: a few short conversations are not rendered after "
                f"{TRIAL_SECONDS:.0f} seconds. Set data.template, or choose another model."
            )
        messages = [once_reasoned(each) for each in messages]
        if self.in_parts:
            messages = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]
        try:
            with _RENDERING:
                texts, places = render_jinja_template(
                    [messages],
                    tools=tools,
                    chat_template=self.source,
                    return_assistant_tokens_mask=marks,
                    add_generation_prompt=ask,
                    **self._special,
                )
        except TooMuch as error:  # so it would be with every row, each after a while
            raise ModelError(
                f"This model's chat template cannot be used: {error}. Set data.template, or choose another model."
            ) from None
        except TEMPLATE_ERRORS as error:
            raise Unrenderable(f"the model's chat template refuses it ({telling_line(error)})") from None
        return texts[0], [(int(start), int(end)) for start, end in places[0] if end > start] if marks else []


def once_reasoned(message: Message) -> Message:
    """A message whose reasoning stands once, without its tags in `reasoning_content`.

    What the content has at its head is left out where it is the same, but for white space.
    """
    reasoning = message.get("reasoning_content")
    if not reasoning:
        return message
    if "</think>" in reasoning:
        tagged = _TAGGED.fullmatch(reasoning)
        message = {**message, "reasoning_content": tagged[1].strip() if tagged is not None else reasoning}
    found = _THOUGHT.match(message["content"]) if "</think>" in message["content"] else None
    if found is None or found[1].split() != message["reasoning_content"].split():
        return message
    return {**message, "content": message["content"][found.end() :]}
