"""How each chat model is prompted: with the tokenizer and the template that its adapter was trained with."""

from collections import OrderedDict
from typing import Any

from core.basemodel.find import FoundModel
from core.data.conversation import Message
from core.data.formats.valid import without_system
from core.data.rendering.template import Template
from core.errors import NibbleError
from core.generation.generate import context_length, prompt_ids
from core.model.load import load_tokenizer
from core.model.vocabulary import refuse_beyond, rows_of
from core.recipe import DataSettings
from core.runs.chat_models import ChatModel

MOST_KEPT = 16


class ChatPrompt:
    """One tokenizer with its template, and what it does with system prompts."""

    def __init__(self, chat_model: ChatModel, found: FoundModel) -> None:
        """Raises ModelError: no tokenizer."""
        self.tokenizer = load_tokenizer(found, chat_model.tokenizer)
        settings = DataSettings(**chat_model.data)
        self._system = settings.system
        own = self.tokenizer.chat_template
        self._in_parts = Template(self.tokenizer, settings).in_parts
        if own and not isinstance(own, dict) and (chat_model.tokenizer is not None or not chat_model.data):
            # What was saved with an adapter is what it was trained with; a base alone has its own, as its makers do.
            self.tokenizer.chat_template = own

    def ids(self, messages: list[Message], model: Any, asked: dict[str, Any] | None = None) -> list[int]:
        """The conversation's tokens with the generation prompt; `asked` are variables for the template.

        Raises NibbleError: an empty message, refused by the template, too long.
        """
        if not messages or not str(messages[-1]["content"]).strip():
            raise NibbleError("The message is empty. Write something first.")
        if self._system != "keep":
            messages = without_system(messages, self._system)
        ids = prompt_ids(self.tokenizer, messages, context_length(model), self._in_parts, asked)
        refuse_beyond(ids, self.tokenizer, rows_of(model), "The conversation")
        return ids


class Prompts:
    """The prompts of the models used last: a tokenizer takes up to a second to load."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], ChatPrompt] = OrderedDict()

    def of(self, chat_model: ChatModel, found: FoundModel) -> ChatPrompt:
        """The prompt of `chat_model`. Raises ModelError."""
        folder = chat_model.tokenizer
        changed = (folder / "tokenizer_config.json").stat().st_mtime_ns if folder and folder.is_dir() else 0
        key = (folder, changed, *sorted(chat_model.data.items()))
        if key not in self._kept:
            self._kept[key] = ChatPrompt(chat_model, found)
        self._kept.move_to_end(key)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]
