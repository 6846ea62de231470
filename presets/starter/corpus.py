"""The starter's corpus: seeded conversations of every kind, none of which holds a held-out prompt.

Everything is written here and in the kinds_*.py files; no other text goes in.
"""

import hashlib
import random
from collections.abc import Iterator

from presets.starter import kinds_copying, kinds_facts, kinds_reading, kinds_talk
from presets.starter.example import Example, Kind, Message

KINDS: dict[Kind, int] = kinds_facts.KINDS | kinds_reading.KINDS | kinds_copying.KINDS | kinds_talk.KINDS

PRACTICE: dict[Kind, float] = {
    kinds_copying.repeating: 2,
    kinds_copying.shopping_list: 3,
    kinds_talk.briefly: 3,
}
"""A factor on a kind's weight in training: copying needs the most practice."""


def held_out(prompt: list[Message]) -> bool:
    """Whether this question is kept for tests. A hash of the last message decides, for one in sixteen."""
    return hashlib.sha256(prompt[-1]["content"].encode()).digest()[0] < 16


def examples(seed: int, practice: bool = False) -> Iterator[Example]:
    """Endless single examples, held-out ones included, each kind as often as its weight says."""
    rng = random.Random(seed)
    kinds = list(KINDS)
    weights = [KINDS[kind] * (PRACTICE.get(kind, 1) if practice else 1) for kind in kinds]
    while True:
        yield rng.choices(kinds, weights)[0](rng)


def conversations(seed: int, practice: bool = False) -> Iterator[list[Message]]:
    """Endless conversations: mostly one exchange, sometimes several in a row. No held-out prompt."""
    rng = random.Random(seed)
    source = (e for e in examples(seed + 1, practice) if not _has_held_out(e.messages))
    for example in source:
        messages = list(example.messages)
        roll = rng.random()
        more = 0 if roll < 0.8 else rng.randint(1, 3) if roll < 0.98 else rng.randint(4, 9)
        for _ in range(more):
            messages += _without_system(next(source).messages)
        yield messages


def _has_held_out(messages: list[Message]) -> bool:
    return any(held_out([m]) for m in messages if m["role"] == "user")


def _without_system(messages: list[Message]) -> list[Message]:
    return [m for m in messages if m["role"] != "system"]
