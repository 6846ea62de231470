"""What a mapping by hand begins with: the columns as the file names them, and a guess that the recipe accepts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.data.check.columns import names_within
from core.settings import MappingSettings

TURNS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        ({"id": 1, "conversations": TURNS}, {"turns": "conversations", "role": "from", "content": "value"}),
        ({"Chat": json.dumps(TURNS)}, {"turns": "Chat", "role": "from", "content": "value"}),
        (
            {"Question": "a", "Answer": "b", "passage": "c"},
            {"prompt": "Question", "reply": "Answer", "context": "passage"},
        ),
        (
            {"input": "a", "output": "b", "System Prompt": "c"},
            {"prompt": "input", "reply": "output", "system": "System Prompt"},
        ),
        ({"x": 1, "y": [1, 2], "z": "[{broken"}, {}),
    ],
)
def test_a_mapping_is_guessed_from_names(row: dict[str, Any], mapping: dict[str, str]) -> None:
    found = names_within([row, row])
    assert found["columns"] == list(row)
    assert {key: name for key, name in found["mapping"].items() if name} == mapping
    MappingSettings.model_validate(found["mapping"])


def test_speakers_are_named_once() -> None:
    assert names_within([{"conversations": TURNS}] * 3)["speakers"] == ["human", "gpt"]
