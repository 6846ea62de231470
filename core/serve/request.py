"""Reads a request for a chat completion strictly: what is not supported is refused, never ignored.

Source: OpenAI's API reference for /v1/chat/completions.
"""

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from core.data.conversation import Message
from core.generation.sampling import Sampling
from core.serve.parameters import read_sampling, refuse_parameters
from core.serve.protocol import RequestError

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
TOOL_ROLES = ("tool", "function")
# Values that say nothing, of keys that are not read.
NOTHING: tuple[Any, ...] = (None, [], {}, "", False)
# Where a client says what may be cached of a prompt, the answer is the same.
CACHES = frozenset({"cache_control"})
# The kinds of parts that are text, by the key that holds it; an assistant may have refused in words.
TEXTS = {"text": "text", "refusal": "refusal"}
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True)
class Wanted:
    """A request. `asked` are variables for the chat template (core/generation/template_variables.py)."""

    model: str
    messages: list[Message]
    sampling: Sampling
    asked: dict[str, Any]
    stream: bool
    with_usage: bool


def read_request(body: bytes) -> Wanted:
    """The request in `body`. Raises RequestError."""
    try:
        given = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise RequestError(400, "The body is not valid JSON.") from None
    if not isinstance(given, dict):
        raise RequestError(400, "The body must be a JSON object.")
    refuse_parameters(given)
    model = given.get("model")
    if not isinstance(model, str) or not model:
        raise RequestError(400, "model must be the name of a model; /v1/models lists them.", "model", "invalid_type")
    stream = _yes_or_no(given.get("stream"), "stream")
    with_usage = _options(given.get("stream_options"))
    return Wanted(model, _messages(given.get("messages")), read_sampling(given), _asked(given), stream, with_usage)


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity, which are no JSON


def _yes_or_no(value: Any, name: str) -> bool:
    if not isinstance(value, (bool, type(None))):
        raise RequestError(400, f"{name} must be true or false.", name, "invalid_type")
    return value is True


def _options(options: Any) -> bool:
    """Whether token counts are wanted at the end of a stream. Raises RequestError."""
    if not isinstance(options, (dict, type(None))):
        raise RequestError(400, "stream_options must be an object.", "stream_options", "invalid_type")
    for name, value in (options or {}).items():
        if name != "include_usage" and value:
            where = f"stream_options.{name[:60]}"
            raise RequestError(400, f"{where} is not supported here.", where, "unsupported_parameter")
    return _yes_or_no((options or {}).get("include_usage"), "stream_options.include_usage")


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    variables, effort = given.get("chat_template_kwargs"), given.get("reasoning_effort")
    if not isinstance(variables, (dict, type(None))):
        name = "chat_template_kwargs"
        raise RequestError(400, f"{name} must be an object.", name, "invalid_type")
    if effort is not None and effort not in EFFORTS:
        text = f"reasoning_effort must be one of {', '.join(EFFORTS)}."
        raise RequestError(400, text, "reasoning_effort", "invalid_value")
    wanted = {"chat_template_kwargs": variables, "reasoning_effort": effort}
    return {name: value for name, value in wanted.items() if value}


def _messages(messages: Any) -> list[Message]:
    """The conversation. Raises RequestError that names what cannot be read."""
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "messages must be a list with at least one message.", "messages", "invalid_type")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message: Any, place: str) -> Message:
    role = message.get("role") if isinstance(message, dict) else None
    if role in TOOL_ROLES:
        text = f"{place}: the role {role} is not supported here, because tools are not supported."
        raise RequestError(400, text, f"{place}.role", "unsupported_value")
    if not isinstance(role, str) or role not in ROLES:
        text = f"{place} has no supported role: {', '.join(ROLES)}."
        raise RequestError(400, text, f"{place}.role", "invalid_value")
    _refuse_others(message, {"role", "content", "name", "refusal"} | CACHES, place)
    read: Message = {"role": ROLES[role], "content": _content(message, place)}
    if message.get("name"):
        if not isinstance(message["name"], str):
            raise RequestError(400, f"{place}.name must be text.", f"{place}.name", "invalid_type")
        read["name"] = message["name"]
    return read


def _content(message: dict[str, Any], place: str) -> str:
    content, of_assistant = message.get("content"), message["role"] == "assistant"
    if isinstance(content, list):
        return "".join(_part(part, f"{place}.content[{index}]") for index, part in enumerate(content))
    if content is None and of_assistant:
        content = message.get("refusal") or ""  # a reply may have been nothing at all
    if not isinstance(content, str):
        raise RequestError(400, f"{place}.content must be text.", f"{place}.content", "invalid_type")
    return content


def _part(part: Any, place: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    key = TEXTS.get(kind) if isinstance(kind, str) else None
    if key is None or not isinstance(part.get(key), str):
        text = f"Only text is supported, not images, audio or files ({place})."
        raise RequestError(400, text, place, "unsupported_value")
    _refuse_others(part, {"type", key} | CACHES, place)
    return str(part[key])


def _refuse_others(given: dict[str, Any], read: set[str] | frozenset[str], place: str) -> None:
    for key, value in given.items():
        if key not in read and value not in NOTHING:
            where = f"{place}.{key[:60]}"
            raise RequestError(400, f"{where} is not supported here.", where, "unsupported_parameter")
