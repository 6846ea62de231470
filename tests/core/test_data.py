"""Files to rows to messages: every format is recognised, every bad file gets one sentence that says where."""

import json

import pytest

from core.data.formats import recognise
from core.data.keep import find_dataset, keep, kept_datasets
from core.data.read import read_rows
from core.errors import DataError, NibbleError
from core.workspace import Workspace

TURN = {"role": "user", "content": "Hi"}
REPLY = {"role": "assistant", "content": "Hello!"}


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"messages": [TURN, REPLY]}, "messages"),
        ({"conversations": [TURN, REPLY]}, "messages"),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}, "sharegpt"),
        ({"instruction": "Hi", "output": "Hello!"}, "alpaca"),
        ({"instruction": "Hi", "input": "", "output": "Hello!"}, "alpaca"),
        ({"prompt": "Hi", "completion": "Hello!"}, "prompt-completion"),
        ({"question": "Hi", "answer": "Hello!"}, "prompt-completion"),
        ({"prompt": [TURN], "completion": [REPLY]}, "prompt-completion"),
        ({"prompt": [TURN], "completion": "Hello!"}, "prompt-completion"),
    ],
)
def test_a_format_is_recognised_and_becomes_messages(row: dict, format: str) -> None:
    found = recognise([row, row], "auto", "file.jsonl")
    assert found.format == format
    assert found.usable[1].row == 2
    assert found.usable[0].messages == [TURN, REPLY]


def test_the_evidence_is_counted() -> None:
    rows = [{"messages": [TURN, REPLY]}] * 3 + [{"other": 1}]
    found = recognise(rows, "auto", "file.jsonl")
    assert found.evidence == "role/content turns in 3 of 4 rows"
    assert [(drop.row, drop.reason) for drop in found.dropped] == [(4, "it holds no list of messages")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "no list of messages"),
        ({"messages": [TURN]}, "no reply to learn from"),
        ({"messages": [REPLY]}, "no question before the reply"),
        ({"messages": [TURN, {"role": "assistant", "content": "  "}]}, "its reply is empty"),
        ({"messages": [TURN, {"role": "assistant", "content": None}]}, "is not text"),
        ({"messages": [TURN, {"role": "assistant", "content": [{"type": "image"}]}]}, "is not text"),
        ({"messages": [TURN, {"role": "alien", "content": "x"}, REPLY]}, "unknown role 'alien'"),
        ({"messages": [TURN, "Hello!"]}, "a turn is not an object"),
        ({"messages": [{"content": "Hi"}, REPLY]}, "a turn has no 'role'"),
        ({"messages": [TURN, {"role": "assistant", "content": "cut \ud83d"}]}, "half a character"),
        ({}, "no list of messages"),
    ],
)
def test_a_row_that_cannot_be_used_is_dropped_with_its_reason(row: dict, reason: str) -> None:
    found = recognise([{"messages": [TURN, REPLY]}, row], "auto", "file.jsonl")
    assert found.rows == len(found.usable) + len(found.dropped) == 2
    assert found.dropped[0].row == 2
    assert reason in found.dropped[0].reason


def test_what_follows_the_last_reply_is_left_out() -> None:
    found = recognise([{"messages": [TURN, REPLY, TURN]}], "auto", "file.jsonl")
    assert found.usable[0].messages == [TURN, REPLY]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.jsonl", b"", "empty.jsonl is empty"),
        ("blank.json", b" \n\n ", "blank.json is empty"),
        ("none.json", b"[]", "holds no rows"),
        ("broken.json", b'[{"prompt": "a",\n "completion": }]', "broken.json, line 2"),
        ("broken.jsonl", b'{"prompt": "a", "completion": "b"}\n{"prompt": \n', "broken.jsonl, line 2"),
        ("binary.json", b"\x00\x01\x02PK\x03\x04", "not a text file"),
        ("latin.jsonl", b'{"prompt": "a"}\n{"prompt": "caf\xe9"}', "line 2: not readable as UTF-8"),
        ("word.docx", b"PK", "not a kind of file"),
        ("number.json", b"42", "a single int, not rows"),
        ("other.jsonl", b'{"a": 1}\n', "Its columns are a"),
        ("list.json", b"[1, 2]", "not objects"),
        ("header.csv", b"prompt,completion\n", "holds no rows"),
        ("twice.csv", b"prompt,prompt\na,b\n", "two columns have the same name"),
        ("quote.csv", b'prompt,completion\n"a,b\n', "quote.csv, line"),
        ("arrays.json", b'{"train": [1], "test": [2]}', "several arrays: train, test"),
        ("deep.json", b"[" * 100_000, "nested too deeply"),
        ("useless.jsonl", b'{"prompt": "a", "completion": ""}\n' * 2, "none of its 2 rows"),
    ],
)
def test_a_bad_file_gets_one_sentence_that_says_where(tmp_path, name: str, content: bytes, said: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError) as refused:
        recognise(read_rows(file), "auto", file.name)
    assert said in str(refused.value)
    assert "Traceback" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps([{"prompt": "Hi", "completion": "Hello!"}])),
        ("wrapped.json", json.dumps({"version": 1, "data": [{"prompt": "Hi", "completion": "Hello!"}]})),
        ("lines.json", '{"prompt": "Hi", "completion": "Hello!"}\n{"prompt": "Hi", "completion": "Hello!"}\n'),
        ("bom.jsonl", '\ufeff{"prompt": "Hi", "completion": "Hello!"}\r\n'),
        ("a.csv", "prompt,completion\r\nHi,Hello!\r\n"),
        ("spaces.csv", " prompt , completion\nHi,Hello!\n"),
        ("a.tsv", "prompt\tcompletion\nHi\tHello!\n"),
    ],
)
def test_the_usual_files_are_read(tmp_path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_bytes(content.encode())
    assert recognise(read_rows(file), "auto", name).usable[0].messages == [TURN, REPLY]


def test_utf16_and_several_lines_in_a_cell_are_read(tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes('prompt,completion\nHi,"Hello,\n""friend"" é"\n'.encode("utf-16"))
    assert read_rows(file)[0]["completion"] == 'Hello,\n"friend" é'


def test_a_dataset_is_kept_by_its_content(tmp_path) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    file = tmp_path / "my data.jsonl"
    file.write_text('{"prompt": "Hi", "completion": "Hello!"}')
    kept = keep(workspace, file)
    file.unlink()
    assert kept.path.read_text().startswith('{"prompt"')
    assert kept_datasets(workspace) == [kept.path]


@pytest.mark.parametrize("name", ["../../evil.jsonl", "a/b.jsonl", "C:\\x.jsonl", "...", "x" * 500 + ".jsonl"])
def test_a_hostile_file_name_stays_in_the_workspace(tmp_path, name: str) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    file = tmp_path / "upload"
    file.write_text("x")
    kept = keep(workspace, file, name)
    assert kept.path.parent.parent == workspace.datasets


def test_a_dataset_that_is_not_there_is_said() -> None:
    for path in ("no-such-file.jsonl", "x" * 5000, "~nobody-here/x", "a\0b", ""):
        with pytest.raises(NibbleError, match="neither a sample's name nor a file"):
            find_dataset(path)
