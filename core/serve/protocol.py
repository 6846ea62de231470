"""Answers in the format of OpenAI's API: replies, whole or in chunks, models, and errors.

Source: OpenAI's API reference for /v1/chat/completions and /v1/models.
"""

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from core.generation.reply import PartialReply


class RequestError(Exception):
    """A refused request as OpenAI's API reports it: HTTP `status`, message, parameter, code."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        kind = "requests" if self.status == 429 else "invalid_request_error"
        kind = "server_error" if self.status >= 500 else kind
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@dataclass
class Completion:
    """One reply, sent whole or in chunks."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    shown: str = ""

    def whole(self, piece: PartialReply) -> dict[str, Any]:
        """The answer without streaming."""
        message = {"role": "assistant", "content": piece.text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": _finish(piece), "logprobs": None}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(piece)}

    def begin(self) -> dict[str, Any]:
        """The first chunk, with the role."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def more(self, piece: PartialReply) -> dict[str, Any] | None:
        """The chunk with the new text of `piece`; None where there is none."""
        fresh = piece.text[len(self.shown) :] if piece.text.startswith(self.shown) else ""
        if not fresh:
            return None
        self.shown = piece.text
        return self._chunk({"content": fresh}, None)

    def end(self, piece: PartialReply) -> dict[str, Any]:
        """The last chunk: why the reply ended."""
        return self._chunk({}, _finish(piece))

    def used(self, piece: PartialReply) -> dict[str, Any]:
        """The chunk after the last, for a client that wants token counts."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(piece)}

    def _chunk(self, delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _finish(piece: PartialReply) -> str:
    return "length" if piece.ends in ("length", "context") else "stop"


def usage(piece: PartialReply) -> dict[str, int]:
    """Tokens of the prompt, of the reply, and together."""
    counts = {"prompt_tokens": piece.prompt_tokens, "completion_tokens": piece.tokens}
    return {**counts, "total_tokens": sum(counts.values())}


def model_card(name: str) -> dict[str, Any]:
    """A model in /v1/models."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "nibble"}
