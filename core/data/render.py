"""Messages to tokens and a loss mask: the one rendering that preview, checks and training share.

The mask covers what the chat template marks as the assistant's, its end of turn included. Covered: templates with
`generation` marks, families that trl ships a training template for, and templates whose prefixes can be proved
to end where a reply begins. Not covered: any other template; it is refused, never guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from core.data.formats import Conversation, Conversations, Dropped, Message
from core.errors import ModelError
from core.workspace import PRESETS

IGNORED = -100


@dataclass(frozen=True)
class Rendered:
    """One conversation as the model sees it. `ids` and `trained` have the same length, at most `max_length`.

    `full_length` is the length in tokens before it was cut.
    """

    row: int
    ids: list[int]
    trained: list[bool]
    full_length: int

    @property
    def truncated(self) -> bool:
        """Whether its end was cut off."""
        return self.full_length > len(self.ids)

    @property
    def labels(self) -> list[int]:
        """The targets of the loss: the token where it is trained on, -100 elsewhere."""
        return [token if trained else IGNORED for token, trained in zip(self.ids, self.trained, strict=True)]


@dataclass(frozen=True)
class RenderedSet:
    """A whole dataset rendered: what is trained on, and what was dropped, with the reasons."""

    rows: int
    usable: list[Rendered]
    dropped: list[Dropped]

    @property
    def truncated(self) -> int:
        """How many conversations were cut to the length limit."""
        return sum(rendered.truncated for rendered in self.usable)


def prepare_tokenizer(tokenizer: Any) -> str:
    """Give `tokenizer` the template to train with and a pad token; returns where the template came from.

    The tokenizer is saved with the adapter, so a chat sees the very same template. Raises ModelError where no
    template can be trusted with a mask.
    """
    from trl.chat_template_utils import get_training_chat_template

    if isinstance(tokenizer.chat_template, dict):  # several, by name; the others are for tools and retrieval
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not tokenizer.chat_template:
        template = (PRESETS / "templates" / "guanaco.jinja").read_text(encoding="utf-8")
        tokenizer.chat_template = template
        return "Guanaco's template, for this base model has none of its own"
    if _has_marks(tokenizer):
        return "the model's own template, which marks the replies"
    try:
        template = get_training_chat_template(tokenizer)
    except ValueError:
        return "the model's own template, replies found by differences of prefixes"
    tokenizer.chat_template = template or tokenizer.chat_template
    return "the model's own template, with trl's marks around the replies"


def render(tokenizer: Any, messages: list[Message], max_length: int, row: int = 1) -> Rendered:
    """Render one conversation. Raises TemplateError where the template refuses it, ModelError where no mask is sure."""
    if _has_marks(tokenizer):
        encoded = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, trained = list(encoded["input_ids"]), [bool(mark) for mark in encoded["assistant_masks"]]
    else:
        ids, trained = _by_prefixes(tokenizer, messages)
    return Rendered(row, ids[:max_length], trained[:max_length], len(ids))


def _by_prefixes(tokenizer: Any, messages: list[Message]) -> tuple[list[int], list[bool]]:
    """Find each reply as what its turn adds to the rendering so far, proved by re-tokenising every prefix."""
    whole = _ids(tokenizer, messages, prompt=False)
    trained = [False] * len(whole)
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _ids(tokenizer, messages[:index], prompt=True) if index else []
        after = _ids(tokenizer, messages[: index + 1], prompt=False)
        if whole[: len(before)] != before or whole[: len(after)] != after:
            raise ModelError(
                "This model's chat template rewrites earlier turns, so it is not sure which tokens are the reply. "
                "Choose the instruct version of a known family, or a base model without a template."
            )
        trained[len(before) : len(after)] = [True] * (len(after) - len(before))
    return whole, trained


def _ids(tokenizer: Any, messages: list[Message], prompt: bool) -> list[int]:
    encoded = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, add_generation_prompt=prompt)
    return list(encoded["input_ids"])


def render_all(tokenizer: Any, conversations: Conversations, max_length: int) -> RenderedSet:
    """Render every conversation; one that the template refuses or that has nothing left to train on is dropped."""
    usable: list[Rendered] = []
    dropped = list(conversations.dropped)
    for conversation in conversations.usable:
        reason, rendered = _try(tokenizer, conversation, max_length)
        if rendered is None:
            dropped.append(Dropped(conversation.row, reason))
        else:
            usable.append(rendered)
    return RenderedSet(conversations.rows, usable, sorted(dropped, key=lambda drop: drop.row))


def _try(tokenizer: Any, conversation: Conversation, max_length: int) -> tuple[str, Rendered | None]:
    try:
        rendered = render(tokenizer, conversation.messages, max_length, conversation.row)
    except TemplateError as error:
        return f"the model's chat template refuses it ({error})", None
    if not any(rendered.trained[1:]):
        return f"its question alone fills the {max_length} tokens, so no reply is left to train on", None
    return "", rendered


def _has_marks(tokenizer: Any) -> bool:
    return re.search(r"\{%-?\s*generation\s*-?%\}", tokenizer.chat_template) is not None
