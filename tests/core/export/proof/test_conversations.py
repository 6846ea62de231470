"""Which conversations an export is proved with: the run's own, held-out ones first, and plain ones of other kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.export.proof.conversations import ONE_TURN, SYSTEM, TOOLS, TURNS, ProofConversation, talks_of
from core.export.source import ExportSource
from core.model.load import load_tokenizer
from tests.core.export.made import source_with_adapter
from tests.tiny import write_jsonl


def _said(*texts: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


@pytest.fixture(scope="module")
def subject(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportSource:
    """A run on conversations of one and of three turns, and with a system prompt; none has tools."""
    made = source_with_adapter(tmp_path_factory.mktemp("talks"), str(tiny), **{"data.eval_fraction": 0.4})
    single = [{"messages": _said(f"hello {n}", "the lazy dog")} for n in range(40)]
    turns = [{"messages": _said(f"a {n}", "red", "a", "blue", "and", "kite")} for n in range(20)]
    system = [{"messages": [{"role": "system", "content": "be brief"}, *_said(f"over {n}", "yes")]} for n in range(20)]
    write_jsonl(made.run.dataset_file(), [*single, *turns, *system])
    return made


def _talks(subject: ExportSource, answered: int = 8) -> tuple[list[ProofConversation], str]:
    found = talks_of(subject, load_tokenizer(subject.base, subject.tokenizer), answered)
    return found.talks, found.source


def test_rows_of_every_kind_come_first_and_what_they_lack_is_completed(subject: ExportSource) -> None:
    talks, source = _talks(subject)
    assert source == "held-out rows, and plain ones of shapes that they lack"
    answered = [talk for talk in talks if talk.is_answered][:8]
    assert {talk.shape for talk in answered} == {ONE_TURN, TURNS, SYSTEM, TOOLS}
    assert [talk.shape for talk in answered if talk.name == "a plain one"] == [TOOLS, TOOLS]
    assert sum(talk.name.startswith("row ") for talk in answered) == 6
    assert any("odd white space" in talk.name for talk in talks)


def test_rows_trained_on_are_laid_out_too_but_not_answered(subject: ExportSource) -> None:
    talks, _ = _talks(subject)
    own = [talk for talk in talks if talk.name.startswith("row ")]
    assert len(own) == 80 and sum(talk.is_answered for talk in own) == 32
    assert len({str(talk.messages) for talk in own}) == 80, "each once"


def test_a_run_whose_data_are_gone_is_proved_with_plain_questions(subject: ExportSource) -> None:
    file = subject.run.dataset_file()
    kept = file.read_bytes()
    file.unlink()
    try:
        talks, source = _talks(subject)
    finally:
        file.write_bytes(kept)
    assert source == "plain questions" and {talk.shape for talk in talks} == {ONE_TURN, TURNS, SYSTEM, TOOLS}
    assert all(talk.is_answered for talk in talks) and len(talks) == 9


def test_system_prompts_that_training_put_into_the_question_stand_there_too(tiny: Path, tmp_path: Path) -> None:
    made = source_with_adapter(tmp_path, str(tiny), **{"data.system": "into_question"})
    talks, _ = _talks(made)
    assert all(message["role"] != "system" for talk in talks for message in talk.messages)
    assert any("You answer briefly." in talk.messages[0]["content"] for talk in talks)
