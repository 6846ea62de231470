"""What a conversation is drawn as: HTML never runs, thoughts are folded, the context's fill is said."""

from __future__ import annotations

import pytest

from app.chat.conversation import Turn
from app.chat.html import context_meter, differences, messages, reply, split_thought, turn_at
from tests.app.data.canned import HOSTILE


@pytest.mark.parametrize(
    ("content", "thought", "said", "thinks"),
    [
        ("Hello", "", "Hello", False),
        ("<think>hm</think>Hello", "hm", "Hello", False),
        ("<think>hm", "hm", "", True),
        ("hm</think>Hello", "hm", "Hello", False),
        ("<think>\n\n</think>\n\nHello", "", "Hello", False),
    ],
)
def test_a_thought_is_told_from_what_is_said(content: str, thought: str, said: str, thinks: bool) -> None:
    assert split_thought(content) == (thought, said, thinks)


def test_a_thought_is_a_folded_message_and_a_place_leads_back_to_its_turn() -> None:
    turns = [Turn("user", "Hi"), Turn("assistant", "<think>hm</think>Hello", "Pirate · 3 tokens"), Turn("user", "And?")]
    shown = messages(turns)
    assert [message.get("metadata", {}).get("title") for message in shown] == [None, "Thought", None, None]
    assert shown[2]["content"] == "Hello\n\n<small>Pirate · 3 tokens</small>"
    assert [turn_at(turns, at) for at in range(4)] == [0, None, None, 2]


def test_names_in_notes_columns_and_tables_are_escaped() -> None:
    assert "<img" not in reply(HOSTILE, HOSTILE)
    assert "<img" not in messages([Turn("assistant", "x", HOSTILE)])[0]["content"]
    assert "<img" not in differences([HOSTILE], [(HOSTILE, [HOSTILE])])


def test_the_context_is_said_in_tokens_and_warns_when_it_is_nearly_full() -> None:
    assert "312 of 2,048 tokens" in context_meter(312, 2048)
    assert "may not fit" in context_meter(2000, 2048) and "may not fit" not in context_meter(312, 2048)
    assert context_meter(0, 0) == ""
    assert "12 tokens so far" in context_meter(12, 0)
