"""`data check` and `data tokens` keep their contract: fields, sums, and one sentence where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.cli.main import main
from tests.tiny import write_jsonl

GOOD = {"messages": [{"role": "user", "content": "Hi 🎈"}, {"role": "assistant", "content": " Hello, ünï! 🪁"}]}


def _call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    status = main(["data", *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two usable rows and one that is not."""
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, {"messages": []}, GOOD])
    path.write_text(path.read_text() + '{"messages": [\n')
    return path


def test_check_prints_the_contract(file: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = _call(capsys, "check", str(file))
    assert status == 0
    assert (report["rows"], report["usable"], report["truncated"]) == (4, 2, 0)
    assert [drop["row"] for drop in report["dropped"]] == [2, 4]
    assert set(report["tokens"]) >= {"total", "trained", "p50", "p95", "max"}
    assert {"code", "message", "rows"} <= set(report["warnings"][0])
    assert report["format"] == "messages"


def test_tokens_decode_to_the_row_and_its_trained_part_to_the_reply(
    file: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, tokens = _call(capsys, "tokens", str(file), "--row", "3")
    assert status == 0
    whole = "".join(token["text"] for token in tokens)
    assert whole == "<|im_start|>user\nHi 🎈<|im_end|>\n<|im_start|>assistant\n Hello, ünï! 🪁<|im_end|>\n"
    assert "".join(token["text"] for token in tokens if token["trained"]) == " Hello, ünï! 🪁<|im_end|>"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--row", "2"], "row 2 is not used: it holds no list of messages"),
        (["--row", "9"], "there is no row 9"),
        (["--row", "0"], "there is no row 0"),
        (["--max-length", "3"], "data.max_length: 3 is not valid"),
        (["--set", "data.template=alien"], "data.template"),
        (["--model", "nobody/nothing-here"], "nobody/nothing-here"),
    ],
)
def test_what_cannot_be_shown_is_said(
    arguments: list[str], said: str, file: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, answer = _call(capsys, "tokens", str(file), *arguments)
    assert status == 1
    assert said in answer["error"]


def test_an_override_keeps_the_file(file: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--set data.…` once hid the file behind the default dataset."""
    _, report = _call(capsys, "check", str(file), "--set", "data.train_on=everything")
    assert report["name"] == "rows.jsonl"
    assert report["tokens"]["trained"] == report["tokens"]["total"]
