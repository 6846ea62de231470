"""Reads a conversation as OpenAI's clients send it: roles, texts, texts in parts.

Source: OpenAI's API reference for /v1/chat/completions, `messages`.
"""

from typing import Any

from core.data.conversation import Message
from core.serve.protocol import RequestError

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
TOOL_ROLES = ("tool", "function")
# Values that say nothing, of keys that are not read.
NOTHING: tuple[Any, ...] = (None, [], {}, "", False)
# Where a client says what may be cached of a prompt, the answer is the same.
CACHES = frozenset({"cache_control"})
# The kinds of parts that are text, by the key that holds it; an assistant may have refused in words.
TEXTS = {"text": "text", "refusal": "refusal"}


def read_messages(messages: Any) -> list[Message]:
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
