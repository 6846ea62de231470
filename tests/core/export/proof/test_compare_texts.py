"""What is compared of a program that opens an export, and which refusals are its right: tried with made-up programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.basemodel.find import find_model
from core.export.proof.checks import ProofCheck, first_difference
from core.export.proof.compare_texts import PROMPTS, TOKENS, WHOLE, hold_texts
from core.export.proof.conversations import ProofConversation, shape_of
from core.export.proof.readers.reader import CannotRender
from core.export.proof.reference import Reference
from core.export.proof.report import check_result
from core.recipe import DataSettings

TURN = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "the dog"}]
CONVERSATIONS = [
    ProofConversation(name, shape_of(messages, None), messages)
    for name, messages in {
        "row 1": TURN,
        "row 2": [*TURN, *TURN],
        "row 3": [{"role": "system", "content": "be brief"}, *TURN],
    }.items()
]


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Reference:
    """The chat of a run over a tiny model."""
    return Reference(find_model(str(tiny)), tiny, DataSettings())


class Program:
    """It says what the chat says, but takes no system prompt, and lays nothing out but prompts."""

    def __init__(self, name: str, reference: Reference, refuses: str) -> None:
        self.name, self._reference, self._refuses = name, reference, refuses

    def rendered(self, messages: list[Any], tools: Any = None, prompt: bool = True) -> str:
        """As Reader's."""
        if not prompt or any(message["role"] == self._refuses for message in messages):
            raise CannotRender("it does not go")
        return self._reference.rendered(messages, tools)

    def tokens(self, text: str) -> list[int]:
        """As Reader's."""
        return self._reference.tokens(text)

    def reply(self, ids: list[int], most: int) -> list[int]:
        """As Reader's."""
        raise AssertionError("texts need no answer")


def _held(reference: Reference, name: str, refuses: str = "system") -> dict[str, ProofCheck]:
    found = hold_texts(reference, Program(name, reference, refuses), CONVERSATIONS, lambda line, share: None)
    return {check.name: check for check in found}


def test_what_ollama_does_not_take_is_told_and_the_rest_is_compared(reference: Reference) -> None:
    held = _held(reference, "Ollama")
    assert (held[PROMPTS].of, held[PROMPTS].equal, held[WHOLE].of) == (3, 3, 0)
    assert held[PROMPTS].because == "a system prompt: not in Ollama (it does not go)"
    assert check_result(held[WHOLE].as_json()) == "nothing to compare, by Ollama's rules. It does not go."
    assert not any(check.broken for check in held.values())


def test_plain_transformers_has_to_take_all_that_the_chat_takes(reference: Reference) -> None:
    held = _held(reference, "transformers")
    assert held[PROMPTS].broken == "the prompt of row 3: the export cannot lay it out, and the chat can"
    assert held[WHOLE].broken == "the whole of row 1: the export cannot lay it out, and the chat can"


def test_no_program_may_refuse_a_single_turn(reference: Reference) -> None:
    assert _held(reference, "llama.cpp", refuses="user")[PROMPTS].broken.startswith("the prompt of row 1: the export")


def test_a_difference_is_shown_where_it_begins_with_both_sides_shortened() -> None:
    own, other = "a" * 50 + "\nright" + "b" * 90, "a" * 50 + " \nwrong"
    assert first_difference(own, other) == (
        'at character 50 the chat has "\\nright' + "b" * 34 + '"…, the export " \\nwrong"'
    )
    assert first_difference([1, 2, 3, 4, 5, 6, 7], [1, 9]) == "at token 1 the chat has [2, 3, 4, 5, 6], the export [9]"
    assert first_difference("ab", "a") == 'at character 1 the chat has "b", the export nothing more'


def test_tokens_are_compared_of_prompts_and_of_whole_conversations(reference: Reference) -> None:
    assert _held(reference, "Ollama")[TOKENS].of == 3
