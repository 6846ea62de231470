"""What an export is held against: the texts and tokens that the run's own chat and training make of a conversation."""

from pathlib import Path
from typing import Any

from core.basemodel.find import FoundModel
from core.data.conversation import Conversation, Message
from core.data.rendering.template import Template, TextLayout, Unrenderable
from core.errors import NibbleError
from core.export.proof.conversations import ProofConversation
from core.export.proof.readers.reader import CannotRender, TokenizerReader, first_line
from core.generation.generate import UNKNOWN_CONTEXT, prompt_ids
from core.model.load import load_tokenizer
from core.recipe import DataSettings

MOST_ADDED = 2_000


class Reference(TokenizerReader):
    """The run's tokenizer and template, used as core/chat and core/data use them.

    What is rendered are `shaped` messages.
    """

    def __init__(self, base: FoundModel, folder: Path, data: DataSettings) -> None:
        """`folder` holds the tokenizer that was saved with the run's adapter. Raises ModelError."""
        super().__init__("the chat", load_tokenizer(base, folder))
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

    def asked(self, messages: list[Message], tools: list[dict[str, Any]] | None) -> list[int]:
        """The tokens of the prompt as the chat asks it, of `shaped` messages. Raises CannotRender."""
        if tools is not None:  # of which the chat knows nothing
            return self.tokens(self.rendered(messages, tools))
        try:
            return prompt_ids(self.tokenizer, messages, UNKNOWN_CONTEXT)
        except NibbleError as error:
            raise CannotRender(first_line(error)) from None

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
