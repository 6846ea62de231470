"""What an export is held against: the texts and tokens that the run's own chat and training make of a conversation."""

from pathlib import Path
from typing import Any

from core.basemodel.find import FoundModel
from core.data.conversation import Conversation, Message
from core.data.rendering.template import Template, TextLayout, Unrenderable
from core.errors import NibbleError
from core.export.proof.conversations import ProofConversation
from core.export.proof.readers.reader import CannotRender
from core.generation.generate import UNKNOWN_CONTEXT, prompt_ids
from core.model.load import load_tokenizer
from core.recipe import DataSettings
from core.untrusted.chat_templates import TEMPLATE_ERRORS

MOST_ADDED = 2_000


class Reference:
    """The run's tokenizer and template, used as core/chat and core/data use them."""

    name = "the chat"

    def __init__(self, base: FoundModel, folder: Path, data: DataSettings) -> None:
        """`folder` holds the tokenizer that was saved with the run's adapter. Raises ModelError."""
        self.tokenizer = load_tokenizer(base, folder)
        own = self.tokenizer.chat_template
        self._template = Template(self.tokenizer, data)
        self.tokenizer.chat_template = own  # what was saved is what was trained with, as core/chat/prompts.py has it

    @property
    def is_dated(self) -> bool:
        """Whether the template writes today's date or the time."""
        return "strftime_now" in str(self.tokenizer.chat_template)

    def shaped(self, messages: list[Message]) -> list[Message]:
        """The messages as this template takes them: some take a content only as a list of parts."""
        if not self._template.in_parts:
            return messages
        return [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]

    def rendered(self, messages: list[Message], tools: list[dict[str, Any]] | None = None, prompt: bool = True) -> str:
        """What the template makes of `shaped` messages. Raises CannotRender."""
        try:
            return str(
                self.tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=prompt)
            )
        except TEMPLATE_ERRORS as error:
            raise CannotRender(_first_line(error)) from None

    def asked(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> list[int]:
        """The tokens of the prompt as the chat asks it, of `shaped` messages. Raises CannotRender."""
        if tools is not None:  # of which the chat knows nothing
            return self.tokens(self.rendered(messages, tools))
        try:
            return prompt_ids(self.tokenizer, messages, UNKNOWN_CONTEXT)
        except NibbleError as error:
            raise CannotRender(_first_line(error)) from None

    def tokens(self, text: str) -> list[int]:
        """The tokens of a rendered text."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def trained(self, conversation: ProofConversation) -> list[TextLayout]:
        """The texts that training makes of the conversation. Raises CannotRender where it would not train on it."""
        try:
            return self._template.lay_outs(
                Conversation(0, conversation.messages, conversation.tools, conversation.text)
            )
        except Unrenderable as error:
            raise CannotRender(str(error)) from None

    @property
    def added_tokens(self) -> str:
        """A text with every token that was added to the vocabulary, up to a bound."""
        return " a".join(list(self.tokenizer.get_added_vocab())[:MOST_ADDED])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(". ")
