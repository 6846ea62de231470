"""The prompts that an export is proved with: of the run's held-out conversations, up to where the reply begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from core.chat.generate import prompt_ids
from core.data.pantry import Pantry
from core.data.prepared import prepare_data
from core.data.split import split_rows
from core.errors import DataError, RunError
from core.export.subject import Subject

MOST = 20
LONGEST_TOKENS = 512
# For a run whose data are gone.
_ANYWAY = [
    "Hello! Who are you?",
    "What is the opposite of hot?",
    "Name three colours.",
    "How many days has a week?",
    "Tell me a short story.",
]


@dataclass(frozen=True)
class Prompts:
    """Token ids to go on from, and `source`: where they are from, in words."""

    ids: list[list[int]]
    source: str


def prompts_of(subject: Subject, tokenizer: Any, most: int = MOST) -> Prompts:
    """Up to `most` prompts: held-out rows first, else rows trained on, else a few plain questions."""
    try:
        rows, source = _rows(subject, tokenizer, most)
    except (DataError, RunError):
        rows, source = [], ""
    if not rows:
        asked = [[{"role": "user", "content": text}] for text in _ANYWAY]
        rows, source = [prompt_ids(tokenizer, each, LONGEST_TOKENS) for each in asked], "plain questions"
    return Prompts(rows, source)


def _rows(subject: Subject, tokenizer: Any, most: int) -> tuple[list[list[int]], str]:
    recipe, file = subject.recipe, subject.run.dataset_file()
    prepared = prepare_data(file, recipe.data, tokenizer, Pantry.beside(file))
    usable = prepared.rendered.usable
    train, held = split_rows(prepared.keys, prepared.named, recipe.data, recipe.train.seed)
    source = "held-out rows" if held else "rows trained on, for none were held out"
    return list(islice(_different(usable.pick(held or train)), most)), source


def _different(rows: Any) -> Iterator[list[int]]:
    """What stands before the first token that counts, each once; the first half of a plain text."""
    seen = set()
    for row in rows:
        ids, trained = list(row.ids), list(row.trained)
        first = trained.index(True) if True in trained else 0
        prompt = ids[: first or max(1, len(ids) // 2)][-LONGEST_TOKENS:]
        if tuple(prompt) not in seen:
            seen.add(tuple(prompt))
            yield prompt
