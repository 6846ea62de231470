"""What a turn or a column says, as text. Pictures, sound, video and files are refused by name."""

import json
from typing import Any

from core.data.conversation import Message, Row
from core.data.formats.content_parts import are_parts, media, read_parts
from core.data.formats.row_reading import Reading, Unusable, kind, missing

_MEDIA_COLUMNS = {
    name: words
    for word, words in (("image", "an image"), ("audio", "audio"), ("video", "a video"))
    for name in (word, f"{word}s", f"{word}_url", f"{word}_urls", f"{word}_path", f"{word}_paths")
}


def refuse_media(row: Row) -> None:
    """Raise Unusable where a column of the row holds pictures, sound or video."""
    for name in () if _MEDIA_COLUMNS.keys().isdisjoint(row) else _MEDIA_COLUMNS.keys() & row.keys():
        if _holds_something(row[name]):
            raise media(_MEDIA_COLUMNS[name])


def text_of(value: Any, where: str, role: str, message: Message, reading: Reading, path: str) -> str:
    """What `value`, which stands at `path`, says in the words of a `role`; reasoning in a part goes into `message`.

    Nothing is "" for a reply, a tool and a system prompt; from a user it is refused, as all that is no text. Only a
    reply's number is taken as text, and what a tool gives back as JSON.
    """
    if isinstance(value, str):
        return value
    said, *more = messages_of(value, where, role, reading, path)
    if more or said["role"] != role:
        raise Unusable(f"{where} contains a tool result, which only a turn may")
    message |= {key: part for key, part in said.items() if key not in ("role", "content")}
    return str(said["content"])


def messages_of(value: Any, where: str, role: str, reading: Reading, path: str) -> list[Message]:
    """What a `role` says in `value`, which is no text: one message, or several where tools answer in between."""
    if missing(value) or value == []:
        if role == "user":
            raise Unusable(f"{where} is missing")
        return [{"role": role, "content": ""}]
    if are_parts(value):
        return read_parts(value if isinstance(value, list) else [value], role, where, path, reading)
    if role == "tool":
        return [{"role": role, "content": json.dumps(value, ensure_ascii=False, default=str)}]
    if role == "assistant" and isinstance(value, (int, float)) and not isinstance(value, bool):
        reading.notes.add("number-as-text")
        return [{"role": role, "content": str(value)}]
    raise Unusable(f"{where} is {kind(value)}, not text")


def _holds_something(value: Any) -> bool:
    """Whether a media column is filled: lists of nothing, empty text and false are not."""
    if isinstance(value, list):
        return any(map(_holds_something, value))
    if isinstance(value, dict):
        return any(map(_holds_something, value.values()))
    return bool(value) and not missing(value)
