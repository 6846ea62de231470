"""The split is seeded, keeps what belongs together on one side, and comes as near to the wanted share as it can."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.conversation import Conversation
from core.data.split import in_both, keys_for_rows, keys_of, split


def _talk(row: int, question: str, reply: str, *more: str) -> Conversation:
    roles = ("user", "assistant") * (len(more) + 1)
    texts = (question, reply, *more)
    return Conversation(row, [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)])


def _keys(conversations: list[Conversation]) -> list[int]:
    return [keys_of(conversation).prompt for conversation in conversations]


def test_without_copies_the_share_is_met_exactly() -> None:
    train, held = split(list(range(100)), 0.1, 1000, seed=0)
    assert (len(train), len(held)) == (90, 10)
    assert sorted(train + held) == list(range(100))


def test_the_seed_decides_and_the_keys_values_do_not() -> None:
    keys = [number // 2 for number in range(100)]
    renamed = [hash(str(key)) for key in keys]
    assert split(keys, 0.2, 100, 1) == split(renamed, 0.2, 100, 1)
    assert split(keys, 0.2, 100, 1) != split(keys, 0.2, 100, 2)


def test_at_most_so_many_are_held_out() -> None:
    assert len(split(list(range(1000)), 0.5, 7, 0)[1]) == 7


@pytest.mark.parametrize("keys", [[], [1], [1, 2], [1, 1, 1, 1], [1, 1, 2, 2]])
def test_nothing_is_held_out_where_fewer_than_two_groups_would_remain(keys: list[int]) -> None:
    assert split(keys, 0.5, 100, 0) == (list(range(len(keys))), [])


def test_a_share_of_nothing_holds_nothing_out() -> None:
    assert split(list(range(10)), 0.0, 100, 0)[1] == []


def test_groups_that_do_not_fit_are_exchanged_or_overshot_by_least() -> None:
    twos = [number // 2 for number in range(40)]
    assert len(split(twos, 0.125, 100, 0)[1]) in (4, 6)  # 5 is wanted
    assert len(split(twos, 0.125, 5, 0)[1]) == 4  # 6 would be more than is allowed
    ones_and_a_giant = [0] * 90 + list(range(1, 11))
    assert len(split(ones_and_a_giant, 0.08, 100, 0)[1]) == 8


@pytest.mark.parametrize("seed", range(24))
def test_two_groups_remain_whatever_the_seed(seed: int) -> None:
    keys = [0, 0, 0, 1, 2, 3]
    train, held = split(keys, 0.5, 100, seed)
    assert len(held) in (2, 3) and len({keys[index] for index in train}) >= 2


@given(
    keys=st.lists(st.integers(0, 20), max_size=120),
    fraction=st.floats(0.0, 0.5),
    most=st.integers(1, 60),
    seed=st.integers(0, 2**31 - 1),
)
def test_equal_keys_are_never_parted(keys: list[int], fraction: float, most: int, seed: int) -> None:
    train, held = split(keys, fraction, most, seed)
    assert sorted(train + held) == list(range(len(keys)))
    assert in_both(keys, train, held) == []
    assert len(held) <= most
    assert not held or len({keys[index] for index in train}) >= 2
    wanted, smallest = min(most, round(len(keys) * fraction)), min(Counter(keys).values(), default=0)
    if held:
        assert abs(len(held) - wanted) <= max(Counter(keys).values())
    else:
        assert len(set(keys)) < 3 or wanted < smallest


def test_copies_and_rows_that_ask_the_same_share_a_key() -> None:
    rows = [
        _talk(1, "Hi", "Hello"),
        _talk(2, "Hi", "Hello"),
        _talk(3, "Hi", "Go away"),
        _talk(4, "Bye", "Hello"),
        _talk(5, "Hi", "Hello", "And?", "Well."),
        Conversation(6, [], text="Hi"),
        Conversation(7, [], text="Hi"),
    ]
    keys = _keys(rows)
    assert keys[0] == keys[1] == keys[2] == keys[4]
    assert keys[5] == keys[6]
    assert len(set(keys)) == 3


def test_a_greeting_before_the_question_is_not_the_question() -> None:
    greeting = {"role": "assistant", "content": "How can I help?"}
    first, second = _talk(1, "Why?", "So."), _talk(2, "How?", "So.")
    rows = [Conversation(each.row, [greeting, *each.messages]) for each in (first, second)]
    assert len(set(_keys(rows))) == 2


def test_tools_and_tool_calls_are_part_of_what_is_asked() -> None:
    row = _talk(1, "Weather?", "Sunny")
    calls = [{"type": "function", "function": {"name": "look", "arguments": {}}}]
    with_call = [row.messages[0], {"role": "assistant", "content": "", "tool_calls": calls}, *row.messages[1:]]
    tools = [{"type": "function", "function": {"name": "look"}}]
    keys = _keys([row, Conversation(2, row.messages, tools), Conversation(3, with_call)])
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]


def test_pieces_of_one_row_have_its_key() -> None:
    rows = [_talk(2, "Hi", "Hello"), _talk(5, "Bye", "Bye")]
    first, second = _keys(rows)
    assert keys_for_rows([2, 2, 5], rows) == [first, first, second]
