"""OpenAI's chat completions in and out: a request read strictly, replies and errors in their shape.

Source: OpenAI's API reference for /v1/chat/completions and /v1/models. What is asked for and cannot be done is refused,
never passed over in silence.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from core.chat.piece import Piece
from core.chat.sampling import LONGEST, Sampling, SamplingError

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
FINISHED = {"length": "length", "context": "length"}
# Parameter: the values that ask for nothing.
NOT_DONE: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "n": (None, 1),
    "response_format": (None, {"type": "text"}),
    "audio": (None,),
    "modalities": (None, ["text"]),
}
NUMBERS = {"temperature": "temperature", "top_p": "top_p", "repetition_penalty": "repetition_penalty"}
WHOLE = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens", "top_k": "top_k", "seed": "seed"}


class RequestError(Exception):
    """A request that is refused, as OpenAI tells it: `status` of HTTP, what, which parameter, which code."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Wanted:
    """What a client asks for."""

    model: str
    messages: list[dict[str, Any]]
    sampling: Sampling
    stream: bool
    with_usage: bool


def read_request(body: bytes) -> Wanted:
    """The request in `body`. Raises RequestError."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "The body is not readable JSON.") from None
    if not isinstance(given, dict):
        raise RequestError(400, "The body has to be a JSON object.")
    for name, nothing in NOT_DONE.items():
        if name in given and given[name] not in nothing:
            raise RequestError(400, f"{name} is not supported here.", name, "unsupported_parameter")
    model = given.get("model")
    if not isinstance(model, str) or not model:
        raise RequestError(400, "model has to be the name of a model; /v1/models lists them.", "model")
    options = given.get("stream_options") or {}
    with_usage = isinstance(options, dict) and options.get("include_usage") is True
    return Wanted(model, _messages(given), _sampling(given), given.get("stream") is True, with_usage)


def _messages(given: dict[str, Any]) -> list[dict[str, Any]]:
    messages = given.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "messages has to be a list with at least one message.", "messages")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message: Any, place: str) -> dict[str, Any]:
    if not isinstance(message, dict) or str(message.get("role")) not in ROLES:
        raise RequestError(400, f"{place} has no role that is known here: {', '.join(ROLES)}.", f"{place}.role")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, f"{place}.content") for part in content)
    if not isinstance(content, str):
        raise RequestError(400, f"{place}.content has to be text.", f"{place}.content")
    return {"role": ROLES[str(message["role"])], "content": content}


def _part(part: Any, place: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise RequestError(400, "Only text can be read here, no images and no sound.", place)
    return str(part["text"])


def _sampling(given: dict[str, Any]) -> Sampling:
    """Sampling as asked for; what is left out is as in the app, and a reply may fill the context."""
    wanted: dict[str, Any] = {"max_new_tokens": LONGEST}
    for names, kinds in ((NUMBERS, (int, float)), (WHOLE, (int,))):
        for name, ours in names.items():
            value = given.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise RequestError(400, f"{name} has to be a {'whole ' if kinds == (int,) else ''}number.", name)
            wanted[ours] = min(value, LONGEST) if ours == "max_new_tokens" else value
    stop = given.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
        raise RequestError(400, "stop has to be a text or a list of texts.", "stop")
    try:
        return Sampling(**wanted, stop=tuple(stops))
    except SamplingError as error:
        given_as = "max_tokens" if error.setting == "max_new_tokens" else error.setting
        raise RequestError(400, str(error).replace(error.setting, given_as), given_as) from None


@dataclass
class Completion:
    """One reply on its way out, whole or in chunks."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    shown: str = ""

    def whole(self, piece: Piece) -> dict[str, Any]:
        """The answer where nothing is streamed."""
        message = {"role": "assistant", "content": piece.text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": _finish(piece), "logprobs": None}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(piece)}

    def begin(self) -> dict[str, Any]:
        """The first chunk: who speaks."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def more(self, piece: Piece) -> dict[str, Any] | None:
        """The chunk with what is new in `piece`; None where nothing is."""
        fresh = piece.text[len(self.shown) :] if piece.text.startswith(self.shown) else ""
        if not fresh:
            return None
        self.shown = piece.text
        return self._chunk({"content": fresh}, None)

    def end(self, piece: Piece) -> dict[str, Any]:
        """The last chunk: why the reply ended."""
        return self._chunk({}, _finish(piece))

    def used(self, piece: Piece) -> dict[str, Any]:
        """The chunk after the last, for a client that wants the counts."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(piece)}

    def _chunk(self, delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _finish(piece: Piece) -> str:
    return FINISHED.get(piece.ends, "stop")


def usage(piece: Piece) -> dict[str, int]:
    """Tokens of the prompt, of the reply, and together."""
    counts = {"prompt_tokens": piece.prompt_tokens, "completion_tokens": piece.tokens}
    return {**counts, "total_tokens": sum(counts.values())}


def model_card(name: str) -> dict[str, Any]:
    """A model in /v1/models."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "nibble"}
