"""What the proof asks of a program that opens an export: lay out a conversation, and split it into tokens."""

from typing import Any, Protocol

from core.data.conversation import Message


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
