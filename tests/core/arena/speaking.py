"""Voices that speak without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from core.errors import NibbleError
from core.generation.reply import PartialReply
from core.generation.sampling import Sampling
from core.runs.chat_models import ChatModel


def voice(key: str, label: str = "") -> ChatModel:
    """A voice by its key alone."""
    return ChatModel(key, label or key, "starter", None, {}, None)


class Speaker:
    """Each voice says its key and the question, a word a piece; a question with `broken` in it is refused."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, list[dict[str, Any]], Sampling]] = []
        self.after_each: Callable[[], None] = lambda: None

    def stream(
        self,
        voice: ChatModel,
        messages: list[dict[str, Any]],
        sampling: Sampling,
        *,
        progress: Callable[[str], None] = lambda line: None,
    ) -> Iterator[PartialReply]:
        """The reply of `voice`."""
        self.heard.append((voice.key, messages, sampling))
        progress(f"Loading {voice.label}…")
        if "broken" in messages[-1]["content"]:
            raise NibbleError("The template refuses that.")
        words = f"{voice.key} says {messages[-1]['content']}".split()
        piece = PartialReply("", 0, 10.0, 0.1)
        for count in range(1, len(words) + 1):
            piece = PartialReply(" ".join(words[:count]), count, 10.0, 0.1)
            yield piece
            self.after_each()
        yield replace(piece, done=True, ends="end")
