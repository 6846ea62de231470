"""Two turns of one speaker in a row: kept apart, or joined on request where a template refuses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.data.check import check
from core.data.dataset import load
from core.errors import DataError
from core.recipe import DataSettings
from tests.tiny import TEMPLATE, tiny_tokenizer, write_jsonl

ALTERNATING = (
    "{%- for message in messages -%}{%- if loop.index0 > 0 and messages[loop.index0 - 1]['role'] == message['role'] -%}"
    "{{ raise_exception('Conversation roles must alternate') }}{%- endif -%}{%- endfor -%}" + TEMPLATE
)


def _message(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


TWICE = [_message("user", "Hello"), _message("user", "Are you there?"), _message("assistant", "Yes.")]


def _joined(messages: list[dict[str, Any]], tmp_path: Path) -> list[dict[str, Any]]:
    loaded = load(write_jsonl(tmp_path / "rows.jsonl", [{"messages": messages}]), DataSettings(join_turns=True))
    return loaded.usable[0].messages


def test_they_are_joined_with_a_blank_line_between(tmp_path: Path) -> None:
    assert _joined(TWICE, tmp_path) == [_message("user", "Hello\n\nAre you there?"), _message("assistant", "Yes.")]


def test_replies_that_count_differently_and_tools_stay_apart(tmp_path: Path) -> None:
    replies = [_message("assistant", "One.", weight=0), _message("assistant", "Two.")]
    assert len(_joined([TWICE[0], *replies], tmp_path)) == 3
    results = [_message("tool", "1"), _message("tool", "2")]
    assert len(_joined([TWICE[0], *results, TWICE[2]], tmp_path)) == 4


def test_without_the_request_nothing_is_joined(tmp_path: Path) -> None:
    loaded = load(write_jsonl(tmp_path / "rows.jsonl", [{"messages": TWICE}]), DataSettings())
    assert len(loaded.usable[0].messages) == 3
    assert "data.join_turns" in next(f.mend for f in loaded.findings if f.code == "same-role-twice")


def test_the_rows_that_it_would_win_are_counted_and_the_reason_names_it(tmp_path: Path) -> None:
    rows = [{"messages": [TWICE[0], TWICE[2]]}, {"messages": TWICE}, {"messages": TWICE}]
    path, tokenizer = write_jsonl(tmp_path / "rows.jsonl", rows), tiny_tokenizer(tmp_path / "tokenizer", ALTERNATING)
    report = check(path, DataSettings(), tokenizer)
    finding = next(each for each in report.findings if each.code == "same-speaker-refused")
    assert (finding.rows, finding.count) == ([2, 3], 2)
    assert "Switch on data.join_turns" in finding.mend
    assert all("data.join_turns merges consecutive turns" in drop.reason for drop in report.dropped)
    assert check(path, DataSettings(join_turns=True), tokenizer).usable == 3


def test_a_format_said_by_hand_does_not_hide_why_a_row_does_not_fit(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "Hi", "completion": "Hello"}])
    with pytest.raises(DataError, match="it holds no list of messages; its layout is prompt-completion"):
        load(path, DataSettings(format="messages"))
