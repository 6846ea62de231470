"""Conversations of chosen lengths: how many tokens a step had, as metrics.jsonl says, tells which they were."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations, combinations_with_replacement
from typing import Any

# A Golomb ruler: no two pairs of its marks lie equally far apart, and so no two pairs have the same sum.
RULER = (0, 1, 6, 10, 23, 26, 34, 41, 53, 55)
_SAID = "the quick brown fox jumps over a lazy dog and hello there how are you red ball blue kite"


def rows_for(tokenizer: Any, shortest: int) -> list[dict[str, Any]]:
    """Ten conversations of `shortest` tokens and more, shared unevenly by questions and replies; some have two turns.

    Every third has a reply that counts half, and one has a reply that does not count beside one that does.
    """
    drawn = random.Random(7)
    return [_row(tokenizer, number, shortest + mark, drawn) for number, mark in enumerate(RULER)]


def _row(tokenizer: Any, number: int, length: int, drawn: random.Random) -> dict[str, Any]:
    words = _SAID.split()
    turns = [[drawn.choice(words)] for _ in range(4 if number % 2 else 2)]
    share = [drawn.random() + 0.05 for _ in turns]

    def row() -> dict[str, Any]:
        roles = ["user", "assistant"] * (len(turns) // 2)
        said = zip(roles, map(" ".join, turns), strict=True)
        return {"messages": [{"role": role, "content": content} for role, content in said]}

    def tokens() -> int:
        return len(tokenizer.apply_chat_template(row()["messages"], return_dict=True)["input_ids"])

    while tokens() < length:
        turn = drawn.choices(turns, share)[0]
        for word in drawn.sample([*words, "e"], len(words) + 1):  # one letter more is one token more
            turn.append(word)
            if tokens() <= length:
                break
            turn.pop()
    assert tokens() == length
    made = row()
    if number % 3 == 2:
        made["messages"][1]["weight"] = 0.5
    if number == 3:
        made["messages"][1]["weight"] = 0.0
    return made


def left_out(lengths: Sequence[int], tokens: int, count: int) -> list[int]:
    """The only `count` rows without which all others have so many tokens."""
    found = [each for each in combinations(range(len(lengths)), count) if sum(lengths) - _sum(lengths, each) == tokens]
    assert len(found) == 1, f"{len(found)} choices of {count} rows leave {tokens} tokens"
    return list(found[0])


def pair_of(lengths: Sequence[int], tokens: int) -> list[int]:
    """The only two rows that have so many tokens together."""
    pairs = combinations_with_replacement(range(len(lengths)), 2)
    found = [pair for pair in pairs if _sum(lengths, pair) == tokens]
    assert len(found) == 1, f"{len(found)} pairs of rows have {tokens} tokens"
    return list(found[0])


def _sum(lengths: Sequence[int], rows: Sequence[int]) -> int:
    return sum(lengths[row] for row in rows)
