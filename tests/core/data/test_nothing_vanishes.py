"""Of files in the shapes that people have, nothing that somebody wrote goes without a word.

Each string of more than two words is in a message that is used, in a row that is dropped with its reason, under a key
that a finding names; or the file is refused in a sentence. The strings are found with no code of ours.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.data.check.raw import RawRows
from core.data.dataset import load
from core.errors import DataError
from core.recipe import DataSettings

SAID = ["is anybody there tonight?", "yes, but only after nine", "did you find the blue kite?", "it was on the roof"]
ME, YOU = {"role": "user"}, {"role": "assistant"}


def _lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _table(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _discord() -> dict[str, Any]:
    people = [{"id": "1", "name": "ann", "nickname": "Ann of the hill"}, {"id": "2", "name": "bo", "nickname": "Bo"}]
    messages = [
        {
            "id": str(at),
            "type": "Default",
            "content": text,
            "author": people[at % 2],
            "attachments": [],
            "isPinned": False,
        }
        for at, text in enumerate(SAID)
    ]
    return {"guild": {"id": "0"}, "channel": {"id": "5", "name": "a channel for two"}, "messages": messages}


def _telegram() -> dict[str, Any]:
    messages: list[dict[str, Any]] = [
        {"id": at, "type": "message", "from": ("Ann", "Bo")[at % 2], "from_id": "u1", "text": text}
        for at, text in enumerate(SAID)
    ]
    messages[2]["text"] = [{"type": "bold", "text": "did you find"}, " the blue kite?"]
    messages.insert(1, {"id": 9, "type": "service", "actor": "Bo of the hill", "action": "phone_call", "text": ""})
    return {"name": "Bo", "type": "personal_chat", "messages": messages}


def _claude() -> list[Any]:
    def turn(at: int) -> dict[str, Any]:
        parts: list[Any] = [{"type": "text", "text": SAID[at], "citations": []}]
        if at % 2:
            parts.insert(
                0, {"type": "tool_use", "name": "look", "input": {"at": "the roof of it"}, "message": "I look now."}
            )
            parts.insert(
                1, {"type": "tool_result", "name": "look", "content": [{"type": "text", "text": "one blue kite"}]}
            )
        return {"uuid": f"m{at}", "text": SAID[at], "content": parts, "sender": ("human", "assistant")[at % 2],
                "attachments": [{"file_name": "a.txt", "extracted_content": "the words of the file"}]}  # fmt: skip

    return [{"uuid": "u", "name": "A talk about kites", "summary": "They talk about kites.",
             "chat_messages": [turn(at) for at in range(4)]}]  # fmt: skip


def _messenger() -> dict[str, Any]:
    messages = [
        {"sender_name": ("Ann", "Bo")[at % 2], "timestamp_ms": at, "content": text} for at, text in enumerate(SAID)
    ]
    return {"participants": [{"name": "Ann"}, {"name": "Bo"}], "messages": messages}


PAIR = {"prompt": SAID[0], "completion": SAID[1]}
FILES: dict[str, str] = {
    "turn_a_line.jsonl": _lines([ME | {"content": SAID[0]}, YOU | {"content": SAID[1]}]),
    "turn_a_row.csv": _table([{"thread_id": 1, "role": "user", "content": SAID[0], "remark": "she was in a hurry"},
                              {"thread_id": 1, "role": "assistant", "content": SAID[1], "remark": "he was at home"}]),
    "films.csv": _table([{"text": text, "label": at % 2} for at, text in enumerate(SAID)]),
    "films_named.csv": _table([{"review": text, "sentiment": "rather good"} for text in SAID]),
    "choices.jsonl": _lines([{"question": SAID[0], "choices": [SAID[1], SAID[3]], "answer": 0}] * 2),
    "script.csv": _table([{"season": 1, "name": "Ann", "line": text} for text in SAID]),
    "articles.jsonl": _lines([{"title": "How to fly a kite", "content": text, "tagline": text[::-1]} for text in SAID]),
    "pairs.jsonl": _lines([PAIR | {"comment": "he did not mean it", "meta": {"why": "for a good reason"}}]),
    "messages.jsonl": _lines([{"messages": [ME | {"content": SAID[0], "note": "asked in a low voice"},
                                            YOU | {"content": [{"type": "text", "text": SAID[1],
                                                                "aside": "said with a smile"}]}]}]),
    "answers.jsonl": _lines([{"question": SAID[0], "answers": {"text": [SAID[1], SAID[3]], "by": ["Ann and her"]}}]),
    "better.jsonl": _lines([{"prompt": SAID[0], "chosen": SAID[1], "rejected": SAID[3], "why": "it says more of it"}]),
    "mixed.jsonl": _lines([PAIR, PAIR, {"text": SAID[2]}, {"messages": [ME | {"content": SAID[3]}]}]),
    "discord.json": json.dumps(_discord()),
    "telegram.json": json.dumps(_telegram()),
    "claude.json": json.dumps(_claude()),
    "message_1.json": json.dumps(_messenger()),
    "slack.json": json.dumps([{"type": "message", "user": "U1", "text": text, "ts": "1.0"} for text in SAID]),
    "tavern.jsonl": _lines([{"user_name": "Ann", "character_name": "Bo of the hill"},
                            *({"name": "Bo", "is_user": False, "mes": text} for text in SAID)]),
}  # fmt: skip
MEANINGS = {"roles": {"Ann": "user", "Bo": "assistant"}}


def strings(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each string of more than two words, and the keys above it."""
    if isinstance(value, str) and len(value.split()) > 2:
        yield path, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from strings(part, (*path, key))
    elif isinstance(value, list):
        for part in value:
            yield from strings(part, path)


def vanished(file: Path, settings: DataSettings) -> list[tuple[int, str]]:
    """The strings that went without a word, with their row. Raises DataError where the file is refused."""
    found = load(file, settings)
    dropped = {each.row for each in found.dropped if each.reason}
    named = set(re.findall(r"`([^`]+)`", " ".join(each.message for each in found.findings)))
    keys = {part for name in named for part in re.split(r"[.\[\]]+", name)}
    used = {each.row: json.dumps([each.messages, each.tools, each.text], ensure_ascii=False) for each in found.usable}
    gone = []
    for number, row in enumerate(RawRows(file, settings).first(), start=1):
        for path, text in strings(row):
            written = json.dumps(text.strip(), ensure_ascii=False)[1:-1]
            if number not in dropped and written not in used[number] and keys.isdisjoint(path):
                gone.append((number, text))
    return gone


@pytest.mark.parametrize("by_hand", ["auto", "text", "messages", "question-answer", "prompt-completion", "preference"])
@pytest.mark.parametrize("name", list(FILES))
def test_nothing_that_somebody_wrote_goes_without_a_word(tmp_path: Path, name: str, by_hand: str) -> None:
    file = tmp_path / name
    file.write_text(FILES[name], encoding="utf-8")
    settings = DataSettings.model_validate({"format": by_hand, "mapping": MEANINGS})
    try:
        assert vanished(file, settings) == []
    except DataError as error:
        assert file.name in str(error)


READ = {"turn_a_row.csv", "articles.jsonl", "pairs.jsonl", "messages.jsonl", "answers.jsonl", "better.jsonl",
        "mixed.jsonl", "telegram.json", "claude.json"}  # fmt: skip


@pytest.mark.parametrize("name", list(FILES))
def test_what_says_who_speaks_and_what_is_answered_is_read_or_asked_for(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(FILES[name], encoding="utf-8")
    settings = DataSettings.model_validate({"mapping": MEANINGS})
    if name in READ:
        assert load(file, settings).usable
    else:
        with pytest.raises(DataError):
            load(file, settings)
