"""What a turn or a column says, as text or as parts; pictures, sound, video and files are refused by name."""

import json
from collections.abc import Collection
from typing import Any

from core.data.conversation import Message, Row
from core.data.formats.row_reading import Reading, Unusable, blank, kind, missing
from core.data.formats.tools import calls_of
from core.data.formats.unused import leave

_MEDIA_COLUMNS = {
    name: words
    for word, words in (("image", "an image"), ("audio", "audio"), ("video", "a video"))
    for name in (word, f"{word}s", f"{word}_url", f"{word}_urls", f"{word}_path", f"{word}_paths")
}
_TEXT = {"text", "input_text", "output_text", "plain"}
_THOUGHT = {"thinking", "reasoning", "thought"}
# The keys that wrap a call or a result instead of a type (Gemini, Bedrock).
_CALL_KEYS = ("functionCall", "function_call", "toolUse", "tool_use")
_RESULT_KEYS = ("functionResponse", "function_response", "toolResult", "tool_result")
_MEDIA_KEYS = ("image", "audio", "video", "document", "inlineData", "fileData", "inline_data", "file_data")
_KEYS = frozenset((*_CALL_KEYS, *_RESULT_KEYS, *_MEDIA_KEYS))
_WORDS = ("text", "content", "value")
_ID_NAMES = ("tool_use_id", "toolUseId", "tool_call_id", "call_id", "id")
_RESULTS = ("content", "response", "output", "result", "value")
_MEDIA = {"image": "an image", "picture": "an image", "audio": "audio", "video": "a video"}
_MEDIA |= dict.fromkeys(("file", "document", "inlinedata"), "a file")


def refuse_media(row: Row) -> None:
    """Raise Unusable where a column of the row holds pictures, sound or video."""
    for name in () if _MEDIA_COLUMNS.keys().isdisjoint(row) else _MEDIA_COLUMNS.keys() & row.keys():
        if _holds_something(row[name]):
            raise media(_MEDIA_COLUMNS[name])


def text_of(value: Any, where: str, role: str, message: Message, reading: Reading, path: str) -> str:
    """The text of `value`, the content of a `role` at `path`; reasoning in a part goes into `message`.

    An empty value is "" except for a user, where it is Unusable, as is all that is not text. A number as a reply is
    taken as text, a tool's result as JSON.
    """
    if isinstance(value, str):
        return value
    found, *more = messages_of(value, where, role, reading, path)
    if more or found["role"] != role:
        raise Unusable(f"{where} contains a tool result, which only a turn may")
    message |= {key: part for key, part in found.items() if key not in ("role", "content")}
    return str(found["content"])


def messages_of(value: Any, where: str, role: str, reading: Reading, path: str) -> list[Message]:
    """The messages of a `role` in `value`, which is not text: one, or several where tools answer in between."""
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


def are_parts(value: Any) -> bool:
    """Whether a value is a list of parts, or a single one."""
    parts = value if isinstance(value, list) else [value]
    return any(map(_is_part, parts)) and all(isinstance(part, str) or _is_part(part) for part in parts)


def _is_part(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    return isinstance(part.get("type"), str) or isinstance(part.get("text"), str) or not part.keys().isdisjoint(_KEYS)


def read_parts(parts: list[Any], role: str, where: str, path: str, reading: Reading) -> list[Message]:
    """The messages that a `role` says in these parts: one, or more where results of tools stand between them.

    `where` names the content in a sentence, `path` in the row. Raises Unusable for pictures, sound, video and files.
    """
    reader = _Parts(role, where, f"{path}[]", reading)
    for part in parts:
        reader.add(part)
    return reader.messages()


class _Parts:
    """The messages in the making."""

    def __init__(self, role: str, where: str, path: str, reading: Reading) -> None:
        self._role, self._where, self._path, self._reading = role, where, path, reading
        self._done: list[Message] = []
        self._clear()

    def _clear(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[dict[str, Any]] = []

    def messages(self) -> list[Message]:
        """All of them, at least one; an empty last one is left out after a tool's result."""
        if not self._is_empty() or not self._done:
            self._end()
        return self._done

    def add(self, part: Any) -> None:
        """Take one part in. Raises Unusable."""
        if isinstance(part, str):
            self._texts.append(part)
            return
        kind = part.get("type") or next((key for key in _KEYS if key in part), "text")
        plain = kind.replace("_", "").replace("-", "").lower()
        if kind in _TEXT:
            texts = self._thoughts if part.get("thought") is True else self._texts
            texts.append(self._take(part, _WORDS, {"thought"}))
        elif kind in _THOUGHT:
            self._thoughts.append(self._take(part, (kind, *_WORDS)))
        elif kind == "refusal":
            self._texts.append(self._take(part, ("refusal",)))
        elif plain.endswith(("tooluse", "toolcall", "functioncall")) and self._role == "assistant":
            self._call(part, kind)
        elif plain.endswith(("toolresult", "functionresponse", "toolresponse", "functioncalloutput")):
            self._result(part, kind)
        else:
            self._unknown(part, kind, plain)

    def _take(self, part: dict[str, Any], names: tuple[str, ...], used: Collection[str] = ()) -> str:
        """The text of a part, under the first of `names` that has any; what else it holds is noted."""
        name = next((name for name in names if _text_in(part.get(name)) is not None), None)
        if name is None:
            raise Unusable(f"a part of {self._where} has no text")
        if len(part) > 2 or (len(part) == 2 and "type" not in part):
            leave(self._reading, self._path, part, {"type", name, *used})
        return _text_in(part[name]) or ""

    def _call(self, part: dict[str, Any], kind: str) -> None:
        inner = next((part[key] for key in _CALL_KEYS if isinstance(part.get(key), dict)), None)
        written = part.get("value")
        if inner is not None:
            leave(self._reading, self._path, part, {"type", *_CALL_KEYS})
            self._calls += calls_of(inner, self._reading, f"{self._path}.{kind}")
        elif isinstance(written, (str, dict, list)) and "name" not in part:
            leave(self._reading, self._path, part, {"type", "value"})
            self._calls += calls_of(written, self._reading, f"{self._path}.value")
        else:
            called = {key: value for key, value in part.items() if key != "type"}
            self._calls += calls_of(called, self._reading, self._path)

    def _result(self, part: dict[str, Any], kind: str) -> None:
        inner = next((part[key] for key in _RESULT_KEYS if isinstance(part.get(key), dict)), part)
        name = next((name for name in _RESULTS if not missing(inner.get(name))), "")
        call = next((key for key in _ID_NAMES if isinstance(inner.get(key), str)), "")
        if not self._is_empty():
            self._end()
        message: Message = {"role": "tool", "content": self._result_text(inner.get(name))}
        if call:
            message["tool_call_id"] = inner[call]
        if isinstance(inner.get("name"), str):
            message["name"] = inner["name"]
        self._done.append(message)
        path = self._path if inner is part else f"{self._path}.{kind}"
        leave(self._reading, path, inner, {"type", "name", name, call})
        if inner is not part:
            leave(self._reading, self._path, part, {"type", *_RESULT_KEYS})

    def _result_text(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        if missing(value):
            return ""
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(each, dict) and isinstance(each.get("text"), str) for each in texts):
            return json.dumps(value, ensure_ascii=False, default=str)
        for each in texts:
            leave(self._reading, f"{self._path}.content[]", each, {"type", "text"})
        return "".join(each["text"] for each in texts)

    def _unknown(self, part: dict[str, Any], kind: str, plain: str) -> None:
        for word, words in _MEDIA.items():
            if word in plain:
                raise media(words)
        name = next((name for name in (*_WORDS, kind) if isinstance(part.get(name), str)), None)
        if name is None:
            leave(self._reading, self._path, part, {"type"})
            self._reading.name("part-left-out", kind[:40])
            return
        self._reading.name("strange-part", kind[:40])
        leave(self._reading, self._path, part, {"type", name})
        self._texts.append(part[name])

    def _is_empty(self) -> bool:
        return not self._calls and blank("".join((*self._texts, *self._thoughts)))

    def _end(self) -> None:
        message: Message = {"role": self._role, "content": "".join(self._texts)}
        if not blank("".join(self._thoughts)):
            message["reasoning_content"] = "".join(self._thoughts)
        if self._calls:
            message["tool_calls"] = self._calls
        self._done.append(message)
        self._clear()


def _text_in(value: Any) -> str | None:
    """A text, or that of parts within a part, as some write reasoning; None for anything else."""
    if not isinstance(value, list):
        return value if isinstance(value, str) else None
    of_parts = value and all(isinstance(each, dict) and each.keys() == {"type", "text"} for each in value)
    return "".join(str(each["text"]) for each in value) if of_parts else None


def media(words: str) -> Unusable:
    """Why a row with `words` (an image, audio …) is not used."""
    return Unusable(f"it contains {words}; Nibble trains on text only", "holds-media")
