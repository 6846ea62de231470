"""Rows to messages: recognise how a dataset is laid out, and turn each row into a conversation or a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.data.read import Row
from core.errors import DataError

Message = dict[str, str]

_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_SHAREGPT_ROLES |= {"chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "system": "system"}
_PROMPT_NAMES = ("prompt", "question", "input", "query")
_COMPLETION_NAMES = ("completion", "response", "answer", "output", "reply")


@dataclass(frozen=True)
class Conversation:
    """One usable row: its number, counted from 1 as errors do, and its messages, ending with a reply."""

    row: int
    messages: list[Message]


@dataclass(frozen=True)
class Dropped:
    """One row that cannot be trained on, and why."""

    row: int
    reason: str


@dataclass(frozen=True)
class Conversations:
    """A dataset as conversations. `len(usable) + len(dropped) == rows`, always."""

    format: str
    evidence: str
    rows: int
    usable: list[Conversation]
    dropped: list[Dropped]


class _Unusable(Exception):
    """Why a row cannot be used; never leaves this file."""


def recognise(rows: list[Row], wanted: str, file: str) -> Conversations:
    """Turn all `rows` of `file` into conversations, in the format `wanted`, or the one found where it is 'auto'.

    Raises DataError where no format fits, or no row is usable.
    """
    name, evidence = _find(rows, file) if wanted == "auto" else (wanted, "chosen by hand")
    convert = _CONVERTERS[name]
    usable: list[Conversation] = []
    dropped: list[Dropped] = []
    for number, row in enumerate(rows, start=1):
        try:
            usable.append(Conversation(number, _valid(convert(row))))
        except _Unusable as error:
            dropped.append(Dropped(number, str(error)))
    if not usable:
        first = dropped[0]
        raise DataError(f"{file}: none of its {len(rows)} rows can be used as {name}. Row {first.row}: {first.reason}.")
    return Conversations(name, evidence, len(rows), usable, dropped)


def _find(rows: list[Row], file: str) -> tuple[str, str]:
    """The format that most rows fit, with the evidence as a person reads it."""
    counts = {name: sum(map(fits, rows)) for name, fits in _SIGNS.items()}
    best = max(counts, key=lambda name: counts[name])
    if counts[best] == 0:
        columns = sorted({key for row in rows[:100] for key in row})
        found = f"Its columns are {', '.join(columns[:12])}" if columns else "Its rows are not objects"
        raise DataError(
            f"{file}: its layout is not known. {found}; wanted are messages (role/content), "
            "conversations (from/value), instruction/output, or prompt/completion."
        )
    return best, f"{_EVIDENCE[best]} in {counts[best]:,} of {len(rows):,} rows"


def _turns(row: Row) -> list[Any]:
    """The list of turns in a row, under whichever of its usual names."""
    for key in ("messages", "conversations", "conversation"):
        if isinstance(row.get(key), list):
            return list(row[key])
    return []


def _has_key(row: Row, key: str) -> bool:
    return any(isinstance(turn, dict) and key in turn for turn in _turns(row))


def _first_name(row: Row, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in row), None)


def _fits_prompt(row: Row) -> bool:
    return _first_name(row, _PROMPT_NAMES) is not None and _first_name(row, _COMPLETION_NAMES) is not None


_SIGNS: dict[str, Callable[[Row], bool]] = {
    "messages": lambda row: _has_key(row, "role"),
    "sharegpt": lambda row: _has_key(row, "from"),
    "alpaca": lambda row: "instruction" in row and ("output" in row or "response" in row),
    "prompt-completion": _fits_prompt,
}
_EVIDENCE = {
    "messages": "role/content turns",
    "sharegpt": "from/value turns",
    "alpaca": "instruction and output columns",
    "prompt-completion": "a prompt and a completion column",
}


def _from_messages(row: Row) -> list[Message]:
    turns = _turns(row)
    if not turns:
        raise _Unusable("it holds no list of messages")
    return [_message(turn, "role", "content", {}) for turn in turns]


def _from_sharegpt(row: Row) -> list[Message]:
    turns = _turns(row)
    if not turns:
        raise _Unusable("it holds no list of conversations")
    head = [{"role": "system", "content": str(row["system"])}] if row.get("system") else []
    return head + [_message(turn, "from", "value", _SHAREGPT_ROLES) for turn in turns]


def _message(turn: Any, role_key: str, text_key: str, roles: dict[str, str]) -> Message:
    if not isinstance(turn, dict):
        raise _Unusable("a turn is not an object")
    role = turn.get(role_key)
    if not isinstance(role, str):
        raise _Unusable(f"a turn has no {role_key!r}")
    text = turn.get(text_key)
    if not isinstance(text, str):
        raise _Unusable(f"the {text_key!r} of a {role} turn is not text")
    return {"role": roles.get(role.lower(), role.lower()), "content": text}


def _from_alpaca(row: Row) -> list[Message]:
    instruction = _text(row, "instruction")
    given = row.get("input")
    question = f"{instruction}\n\n{given}" if isinstance(given, str) and given.strip() else instruction
    head = [{"role": "system", "content": str(row["system"])}] if row.get("system") else []
    answer = _text(row, "output" if "output" in row else "response")
    return [*head, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _from_prompt_completion(row: Row) -> list[Message]:
    prompt, completion = _first_name(row, _PROMPT_NAMES), _first_name(row, _COMPLETION_NAMES)
    if prompt is None or completion is None:
        raise _Unusable("it has no prompt or no completion")
    if isinstance(row[prompt], list):
        turns = [*row[prompt], *(row[completion] if isinstance(row[completion], list) else [])]
        messages = [_message(turn, "role", "content", {}) for turn in turns]
        reply = row[completion]
        return [*messages, {"role": "assistant", "content": reply}] if isinstance(reply, str) else messages
    question, answer = _text(row, prompt), _text(row, completion)
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise _Unusable(f"its {key!r} is not text")
    return value


_CONVERTERS: dict[str, Callable[[Row], list[Message]]] = {
    "messages": _from_messages,
    "sharegpt": _from_sharegpt,
    "alpaca": _from_alpaca,
    "prompt-completion": _from_prompt_completion,
}


def _valid(messages: list[Message]) -> list[Message]:
    """The messages, cut after the last reply: what follows it can teach nothing."""
    for message in messages:
        if any("\ud800" <= letter <= "\udfff" for letter in message["content"]):
            raise _Unusable("it holds half a character, such as an emoji that was cut in two")
        if message["role"] not in ("system", "user", "assistant"):
            raise _Unusable(f"it has a turn of the unknown role {message['role']!r}")
    replies = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if not replies:
        raise _Unusable("it has no reply to learn from")
    if not any(messages[index]["content"].strip() for index in replies):
        raise _Unusable("its reply is empty")
    if not any(message["role"] == "user" for message in messages[: replies[-1]]):
        raise _Unusable("it has no question before the reply")
    return messages[: replies[-1] + 1]
