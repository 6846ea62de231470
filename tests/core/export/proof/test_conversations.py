"""Which conversations an export is proved with: the run's own, held-out ones first, and plain ones of other kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.export.proof.conversations import ONE_TURN, SYSTEM, TOOLS, TURNS, ProofConversation, conversations_of
from core.export.shared.source import ExportSource
from core.model.load import load_tokenizer
from tests.core.export.made import source_with_adapter
from tests.tiny import write_jsonl


def _said(*texts: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


@pytest.fixture(scope="module")
def source(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportSource:
    """A run on conversations of one and of three turns, and with a system prompt; none has tools."""
    made = source_with_adapter(tmp_path_factory.mktemp("conversations"), str(tiny), **{"data.eval_fraction": 0.4})
    single = [{"messages": _said(f"hello {n}", "the lazy dog")} for n in range(40)]
    turns = [{"messages": _said(f"a {n}", "red", "a", "blue", "and", "kite")} for n in range(20)]
    system = [{"messages": [{"role": "system", "content": "be brief"}, *_said(f"over {n}", "yes")]} for n in range(20)]
    write_jsonl(made.run.dataset_file(), [*single, *turns, *system])
    return made


def _chosen(source: ExportSource, answered: int = 8) -> tuple[list[ProofConversation], str]:
    found = conversations_of(source, load_tokenizer(source.base, source.tokenizer), answered)
    return found.conversations, found.source


def test_rows_of_every_kind_come_first_and_what_they_lack_is_completed(source: ExportSource) -> None:
    conversations, origin = _chosen(source)
    assert origin == "held-out rows, and plain ones of shapes that they lack"
    answered = [conversation for conversation in conversations if conversation.is_answered][:8]
    assert {conversation.shape for conversation in answered} == {ONE_TURN, TURNS, SYSTEM, TOOLS}
    assert [conversation.shape for conversation in answered if conversation.name == "a plain one"] == [TOOLS, TOOLS]
    assert sum(conversation.name.startswith("row ") for conversation in answered) == 6
    assert any("odd white space" in conversation.name for conversation in conversations)


def test_rows_trained_on_are_laid_out_too_but_not_answered(source: ExportSource) -> None:
    conversations, _ = _chosen(source)
    own = [conversation for conversation in conversations if conversation.name.startswith("row ")]
    assert len(own) == 80 and sum(conversation.is_answered for conversation in own) == 32
    assert len({str(conversation.messages) for conversation in own}) == 80, "each once"


def test_a_run_whose_data_are_gone_is_proved_with_plain_questions(source: ExportSource) -> None:
    file = source.run.dataset_file()
    kept = file.read_bytes()
    file.unlink()
    try:
        conversations, origin = _chosen(source)
    finally:
        file.write_bytes(kept)
    assert origin == "plain questions" and {conversation.shape for conversation in conversations} == {
        ONE_TURN,
        TURNS,
        SYSTEM,
        TOOLS,
    }
    assert all(conversation.is_answered for conversation in conversations) and len(conversations) == 9


def test_system_prompts_that_training_put_into_the_question_stand_there_too(tiny: Path, tmp_path: Path) -> None:
    made = source_with_adapter(tmp_path, str(tiny), **{"data.system": "into_question"})
    conversations, _ = _chosen(made)
    assert all(message["role"] != "system" for conversation in conversations for message in conversation.messages)
    assert any("You answer briefly." in conversation.messages[0]["content"] for conversation in conversations)
