"""The desk: a dataset is checked in the background while any of its rows is shown at once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.data.check import job
from core.data.dataset import load
from core.errors import NibbleError, RecipeError
from core.preflight import inspection
from core.preflight.dataset_session import DatasetSession
from core.recipe import DataSettings
from core.workspace import Workspace
from tests.tiny import chat_rows, tiny_model, write_jsonl

ROWS = [
    *chat_rows(10),
    {"messages": []},  # row 11: dropped when it is read
    {"messages": [{"role": "user", "content": "jumps " * 300}, {"role": "assistant", "content": "<b>yes</b>"}]},  # 12
    chat_rows(1)[0],  # row 13: a copy of the first
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("desk") / "tiny")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[DatasetSession]:
    from core.basemodel.find import find_model
    from core.model.load import load_tokenizer

    desk = DatasetSession(Workspace.open(tmp_path / "workspace"), lambda name: load_tokenizer(find_model(name)))
    yield desk
    desk.close()


def recipe(model: Path, file: Path, **data: Any) -> dict[str, Any]:
    return {"model": str(model), "data": {"path": str(file), "max_length": 64, **data}}


def finished(desk: DatasetSession, stage: str = "done") -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = desk.state()
        if state["stage"] in (stage, "failed"):
            return state
        time.sleep(0.01)
    raise AssertionError(f"still {desk.state()['stage']} after a minute")


@pytest.fixture
def opened(desk: DatasetSession, model: Path, tmp_path: Path) -> DatasetSession:
    desk.open(recipe(model, write_jsonl(tmp_path / "my rows.jsonl", ROWS)))
    assert finished(desk)["stage"] == "done"
    return desk


def test_nothing_is_on_the_desk_at_first(desk: DatasetSession) -> None:
    assert desk.answer({"do": "state"})["stage"] == "idle"
    with pytest.raises(NibbleError, match="No dataset"):
        desk.answer({"do": "row", "number": 1})
    with pytest.raises(NibbleError, match="no dataset command"):
        desk.answer({"do": "dance"})


def test_the_state_becomes_the_report(opened: DatasetSession) -> None:
    state = opened.answer({"do": "state"})
    assert (state["stage"], state["error"], state["progress"]) == ("done", None, 1.0)
    assert (state["rows"], state["usable"]) == (13, 11)
    assert [each["row"] for each in state["dropped"]] == [11, 12]
    assert [each["code"] for each in state["warnings"]] == ["duplicate", "question-fills-limit"]
    assert state["turn_columns"] == {"messages": ["role", "content"]}
    assert state["speakers"] == ["user", "assistant"]
    assert state["mapping"] == {"turns": "messages", "role": "role", "content": "content", "system": None}
    json.dumps(state)


def test_a_usable_row_is_shown_with_its_tokens_and_findings(opened: DatasetSession) -> None:
    found = opened.answer({"do": "row", "number": 13})
    assert (found["row"], found["rows"], found["findings"]) == (13, 13, ["duplicate"])
    assert found["messages"] == ROWS[12]["messages"]
    assert sum(token["trained"] for token in found["tokens"]) == found["trained"] > 0
    assert "".join(token["text"] for token in found["tokens"] if token["trained"]) == "the lazy dog over 0<|im_end|>"
    assert found["truncated_here"] is False
    assert json.loads(found["raw"]) == ROWS[12]


def test_a_dropped_row_is_shown_as_it_stands_in_the_file(opened: DatasetSession) -> None:
    found = opened.row(11)
    assert found["reason"]
    assert json.loads(found["raw"]) == {"messages": []}
    assert "tokens" not in found
    late = opened.row(12)
    assert "fills the 64 tokens" in late["reason"]
    assert late["messages"][1]["content"] == "<b>yes</b>"
    assert late["findings"] == ["question-fills-limit"]


def test_a_number_beyond_the_file_shows_its_last_or_first_row(opened: DatasetSession) -> None:
    assert opened.row(99)["row"] == 13
    assert opened.row(-5)["row"] == 1


def test_the_first_row_shown_is_one_that_can_be_used(desk: DatasetSession, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    write_jsonl(folder / "test.jsonl", chat_rows(3))
    write_jsonl(folder / "train.jsonl", chat_rows(6))
    desk.open(recipe(model, folder))
    finished(desk)
    assert desk.row(0)["row"] == 4 and "not used" in desk.row(1)["reason"]


def test_rows_may_be_turned_backwards_and_forwards(opened: DatasetSession) -> None:
    for number in (5, 6, 4, 13, 1):
        assert json.loads(opened.row(number)["raw"]) == ROWS[number - 1]


def test_the_rows_of_a_finding_come_in_parts(opened: DatasetSession) -> None:
    assert opened.answer({"do": "rows_of", "code": "duplicate"}) == {"code": "duplicate", "count": 1, "rows": [13]}
    assert opened.rows_of("duplicate", start=1)["rows"] == []
    assert opened.rows_of("no-such-code")["rows"] == []


def test_the_cleaned_data_reads_back_as_it_was(opened: DatasetSession, tmp_path: Path) -> None:
    path = tmp_path / "cleaned.jsonl"
    assert opened.answer({"do": "save_cleaned", "path": str(path)})["rows"] == 11
    settings = DataSettings(max_length=64)
    again = load(path, settings)
    assert again.format == "messages"
    assert [each.messages for each in again.usable] == [row["messages"] for row in (*ROWS[:10], ROWS[12])]
    assert opened.save_cleaned(path, without_copies=True)["rows"] == 10


def test_text_and_tools_are_kept_in_the_cleaned_data(desk: DatasetSession, model: Path, tmp_path: Path) -> None:
    desk.open(recipe(model, write_jsonl(tmp_path / "text.jsonl", [{"text": "a réd ball 🎈"}, {"text": "a kite"}])))
    finished(desk)
    assert desk.row(1)["text"] == "a réd ball 🎈"
    desk.save_cleaned(tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"text": "a réd ball 🎈"}, {"text": "a kite"}]
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
    desk.open(recipe(model, write_jsonl(tmp_path / "tools.jsonl", [{**chat_rows(1)[0], "tools": tools}])))
    finished(desk)
    desk.save_cleaned(tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text("utf-8"))["tools"] == tools


def test_the_report_is_saved_as_json_and_as_a_page(opened: DatasetSession, tmp_path: Path) -> None:
    opened.answer({"do": "save_report", "path": str(tmp_path / "report.json")})
    opened.answer({"do": "save_report", "path": str(tmp_path / "report.md")})
    saved = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert saved["warnings"] == opened.state()["warnings"]
    page = (tmp_path / "report.md").read_text("utf-8")
    assert "13 rows: 11 usable, 2 dropped" in page
    assert "`question-fills-limit`" in page
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_place_that_cannot_be_written_is_said(opened: DatasetSession, tmp_path: Path) -> None:
    with pytest.raises(NibbleError, match="report.md cannot be written"):
        opened.save_report(tmp_path / "no such folder" / "report.md")


def test_a_file_that_cannot_be_used_is_said_and_its_columns_are_offered(
    desk: DatasetSession, model: Path, tmp_path: Path
) -> None:
    file = write_jsonl(tmp_path / "strange.jsonl", [{"colour": "red", "turns": [{"who": "me"}]}] * 2)
    desk.open(recipe(model, file))
    state = finished(desk)
    assert state["stage"] == "failed"
    assert "strange.jsonl" in state["error"]
    assert state["columns"] == ["colour", "turns"]
    assert state["turn_columns"] == {"turns": ["who"]}
    assert not any(state["mapping"].values())
    found = desk.row(1)
    assert found["reason"] == state["error"]
    assert json.loads(found["raw"])["colour"] == "red"
    with pytest.raises(NibbleError, match="strange.jsonl"):
        desk.save_cleaned(tmp_path / "x.jsonl")


def test_a_mapping_by_hand_mends_it(desk: DatasetSession, model: Path, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "strange.jsonl", [{"frage": "hello", "antwort": "there"}] * 3)
    desk.open(recipe(model, file))
    assert finished(desk)["stage"] == "failed"
    mapping = {"prompt": "frage", "reply": "antwort"}
    desk.open(recipe(model, file, format="mapping", mapping=mapping))
    assert finished(desk)["usable"] == 3
    assert desk.row(2)["messages"][1]["content"] == "there"


@pytest.mark.parametrize("path", ["no-such-file.jsonl", "x" * 3000])
def test_a_dataset_that_is_not_there_is_said(desk: DatasetSession, model: Path, path: str) -> None:
    desk.open(recipe(model, Path(path)))
    state = finished(desk)
    assert state["stage"] == "failed"
    assert "There is no dataset" in state["error"]
    with pytest.raises(NibbleError, match="There is no dataset"):
        desk.row(1)


def test_a_wrong_recipe_is_refused_at_once(desk: DatasetSession) -> None:
    with pytest.raises(RecipeError):
        desk.open({"data": {"max_length": 3}})


def test_what_lies_on_the_desk_already_is_not_read_again(opened: DatasetSession, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "my rows.jsonl"
    assert opened.open(recipe(model, file))["stage"] == "done"
    write_jsonl(file, chat_rows(4))
    assert opened.open(recipe(model, file))["stage"] != "done"
    assert finished(opened)["rows"] == 4


def test_another_limit_reads_no_file_again(
    opened: DatasetSession, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(job, "read_rows", refuse)
    opened.open(recipe(model, tmp_path / "my rows.jsonl", max_length=1024))
    state = finished(opened)
    assert (state["stage"], state["usable"], state["max_length"]) == ("done", 12, 1024)
    opened.open(recipe(model, tmp_path / "my rows.jsonl", system="leave_out"))
    assert finished(opened)["error"] == "AssertionError: read again. Please report it."


def test_rows_are_shown_while_tokens_are_counted_and_a_newer_dataset_ends_that(
    desk: DatasetSession, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, ended = threading.Event(), threading.Event()
    take = job.TokenTally.take

    def slow_take(self: Any, conversations: Any, progress: Any) -> None:
        go_on.wait(60)
        try:
            take(self, conversations, progress)
        except BaseException:
            ended.set()
            raise

    monkeypatch.setattr(job.TokenTally, "take", slow_take)
    desk.open(recipe(model, write_jsonl(tmp_path / "slow.jsonl", chat_rows(2000))))
    state = finished(desk, "tokens")
    assert (state["stage"], state["rows"], state["tokens"]) == ("tokens", 2000, None)
    before = time.monotonic()
    assert desk.row(1500)["tokens"]
    assert time.monotonic() - before < 5  # a page that waits for the counting would wait a minute
    with pytest.raises(NibbleError, match="still being checked"):
        desk.save_cleaned(tmp_path / "x.jsonl")
    desk.open(recipe(model, write_jsonl(tmp_path / "next.jsonl", chat_rows(5))))
    go_on.set()
    assert finished(desk)["rows"] == 5
    assert ended.wait(60)
    assert desk.state()["name"] == "next.jsonl"


def test_a_defect_is_told_and_not_hidden(
    desk: DatasetSession, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(inspection, "names_within", fail)
    desk.open(recipe(model, write_jsonl(tmp_path / "rows.jsonl", chat_rows(2))))
    assert finished(desk)["error"] == "ZeroDivisionError: by nought. Please report it."
