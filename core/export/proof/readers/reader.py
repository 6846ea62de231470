"""What the proof asks of a program that opens an export: lay out a conversation, and split it into tokens."""

from typing import Any, Protocol

from core.data.conversation import Message
from core.untrusted.chat_templates import TEMPLATE_ERRORS


class CannotRender(Exception):
    """Why a program cannot lay a conversation out. `str(error)` is the reason, without a full stop."""


class Reader(Protocol):
    """An export as one program reads it. Nothing of the run is known to it: only what lies in the export's folder."""

    name: str
    """The program, for a person: "transformers and peft", "llama.cpp", "Ollama"."""

    def rendered(self, messages: list[Message], tools: list[dict[str, Any]] | None = None, prompt: bool = True) -> str:
        """What the export's own chat template makes of a conversation; `prompt`: ready for a reply.

        Raises CannotRender.
        """
        ...

    def tokens(self, text: str) -> list[int]:
        """The ids that the model is fed for a rendered text, the program's own rule for the first token applied."""
        ...


class TokenizerReader:
    """A conversation as transformers' `tokenizer` lays it out and splits it."""

    def __init__(self, name: str, tokenizer: Any) -> None:
        self.name, self.tokenizer = name, tokenizer

    def rendered(self, messages: list[Message], tools: list[dict[str, Any]] | None = None, prompt: bool = True) -> str:
        """As Reader's."""
        try:
            return str(
                self.tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=prompt)
            )
        except TEMPLATE_ERRORS as error:
            raise CannotRender(first_line(error)) from None

    def tokens(self, text: str) -> list[int]:
        """As Reader's; a template writes the first token itself, so transformers adds none to what it renders."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def first_line(error: Exception) -> str:
    """What an error says, shortened; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(". ")
