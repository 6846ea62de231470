"""`arena` on the command line: one JSON document with the fields that others build on, and refusals in a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.arena.answers import AnswerBook
from core.arena.match import ITS_BASE
from core.arena.votes import VoteBook
from core.cli import arena as cli_arena
from core.cli.main import main
from core.workspace import Workspace
from tests.core.arena.speaking import Speaker

ROWS = "model_a,model_b,winner\n" + "good,bad,model_a\nbad,good,model_b\ngood,bad,tie\n" * 5 + "good,bad,unparsed\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "votes.csv"
    path.write_text(ROWS, encoding="utf-8")
    return path


@pytest.fixture
def speaker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Speaker]:
    """Voices that speak without a model, in the chat's place."""
    found = Speaker()
    found.close = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setattr("core.chat.client.ChatClient", lambda workspace: found)
    return found


def _call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    status = main(["arena", *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_elo_of_a_file(file: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = _call(capsys, "elo", str(file), "--orderings", "200", "--seed", "3")
    assert (status, found["votes"], found["unreadable"]) == (0, 15, 1)
    first, second = found["ratings"]
    assert list(first) == ["model", "elo", "low", "high", "games"]
    assert (first["model"], first["games"], second["model"]) == ("good", 15, "bad")
    assert first["low"] < first["elo"] < first["high"]
    assert _call(capsys, "elo", str(file), "--orderings", "200", "--seed", "3")[1] == found


def test_what_cannot_be_counted_is_refused(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["elo"], "This workspace has no votes"),
        (["elo", "gone.csv"], "no file gone.csv"),
        (["answer", "base:starter"], "only one model"),
        (["answer", "base:starter", "base:other", "--category", "cooking"], "no category 'cooking'"),
        (["judge", "--url", "http://127.0.0.1:1/v1", "--model", "m"], "no prepared replies left"),
    ):
        status, found = _call(capsys, *arguments)
        assert status == 1 and said in found["error"]


def test_votes_go_in_and_out(file: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = _call(capsys, "import", str(file))
    assert (status, found["imported"], found["unreadable"]) == (0, 15, 1)
    assert "imported before" in _call(capsys, "import", str(file))[1]["error"]
    out = tmp_path / "out.csv"
    status, found = _call(capsys, "votes", "--export", str(out))
    assert (status, found["votes"], found["by"]) == (0, 15, {"person": 0, "judge": 0, "import": 15})
    assert len(out.read_text(encoding="utf-8").splitlines()) == 16
    assert _call(capsys, "elo", "--orderings", "50")[1]["votes"] == 15


def test_answers_are_made_for_voting_later(
    data_dir: Path, speaker: Speaker, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ("answer", "base:starter", "base:other", "--category", "talk", "--max-new-tokens", "16")
    assert _call(capsys, *call) == (0, {"answers": 16, "of": 16, "failed": []})
    assert len(AnswerBook(Workspace.open(data_dir)).refresh()) == 16
    assert _call(capsys, *call)[0] == 0 and len(speaker.heard) == 16
    assert {sampling.max_new_tokens for _, _, sampling in speaker.heard} == {16}


def test_a_judge_takes_its_key_from_the_environment(
    data_dir: Path, speaker: Speaker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def ask(judge: Any, messages: list[dict[str, str]]) -> str:
        heard.append(judge.key)
        return "VERDICT: TIE"

    monkeypatch.setenv("MY_KEY", "secret")
    monkeypatch.setattr("core.arena.judge.Judge._ask", ask)
    _call(capsys, "answer", "base:starter", "base:other", "--category", "talk")
    call = ("judge", "--url", "https://judge.example/v1", "--model", "m", "--key-from", "MY_KEY")
    status, found = _call(capsys, *call)
    assert (status, found["pairs"], found["unread"], set(heard)) == (0, 8, 0, {"secret"})
    assert found["bias"] == {"pairs": 8, "agree": 8, "first": 0, "second": 0}
    assert len(VoteBook(Workspace.open(data_dir)).refresh()) == 16


def test_a_run_and_its_base_may_be_named_by_themselves() -> None:
    named = [cli_arena._spelt(voice) for voice in ("last", "base", "base:starter")]
    assert named == ["run:last", ITS_BASE, "base:starter"]
