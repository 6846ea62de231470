"""What makes a row usable: each rule, with the reason of the dropped and the finding of the kept."""

import math
from typing import Any

import pytest

from core.data.conversation import Conversations, Unreadable
from core.data.formats.convert import convert
from core.data.formats.recognise import recognise_layout
from core.data.spill import SpilledConversations
from core.recipe import DataSettings

ASK = {"role": "user", "content": "Hi"}
REPLY = {"role": "assistant", "content": "Hello!"}
SYSTEM = {"role": "system", "content": "Be kind."}
EMPTY = {"role": "assistant", "content": "  "}


def converted(rows: list[Any], **settings: Any) -> Conversations:
    chosen = DataSettings(**settings)
    readable = [row for row in rows if not isinstance(row, Unreadable)]
    return convert(rows, recognise_layout(readable, chosen, "file.jsonl"), chosen, "file.jsonl", SpilledConversations())


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def messages(row: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    return list(converted([row], **settings).usable[0].messages)


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "it holds no list of messages"),
        ([ASK], "it has no reply to learn from"),
        ([REPLY], "it has no prompt before the reply"),
        ([{"role": "user", "content": " "}, REPLY], "it has no prompt before the reply"),
        ([ASK, EMPTY], "its reply is empty"),
        ([ASK, said(None)], "its reply is empty"),
        ([ASK, said(math.nan)], "its reply is empty"),
        ([ASK, said([])], "its reply is empty"),
        ([{"role": "user", "content": None}, REPLY], "the 'content' of a turn by user is missing"),
        ([{"role": "user", "content": 5}, REPLY], "the 'content' of a turn by user is a number, not text"),
        ([ASK, said({"a": 1})], "the 'content' of a turn by assistant is an object, not text"),
        ([ASK, said(True)], "is true or false, not text"),
        ([ASK, said(["a", "b"])], "is a list, not text"),
        ([ASK, said([{"type": "text", "text": 1}])], "a part of the 'content' of a turn by assistant has no text"),
        ([{"role": "alien", "content": "x"}, REPLY], "it has a turn of the unknown role 'alien'"),
        ([ASK, "Hello!"], "a turn is not an object"),
        ([{"content": "Hi"}, REPLY], "a turn has no 'role'"),
        ([ASK, said("cut \ud83d")], "it contains half a character, such as an emoji cut in two"),
        ([ASK, said("x", name="\ud83d")], "it contains half a character, such as an emoji cut in two"),
        ([{"role": "user", "content": [{"type": "image"}]}, REPLY], "it contains an image; Nibble trains on text only"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}, REPLY], "it contains audio; Nibble trains on text"),
        ([{"role": "user", "content": [{"type": "video_url"}]}, REPLY], "it contains a video; Nibble trains on text"),
        ([{"role": "user", "content": [{"type": "input_file"}]}, REPLY], "it contains a file; Nibble trains on text"),
        ([ASK, said("", tool_calls=["x"])], "a tool call is not an object"),
        ([ASK, said("", tool_calls=[{"function": {"arguments": {}}}])], "a tool call has no name"),
        ([ASK, said("", tool_calls=[{"name": "f", "arguments": "{"}])], "the arguments of a tool call cannot be read"),
        ([ASK, said("", tool_calls=[{"name": "f", "arguments": "[1]"}])], "arguments of a tool call are not an object"),
        ([ASK, {"from": "function_call", "value": "add 1"}, REPLY], "a tool call cannot be read as JSON"),
        ([ASK, said("x", reasoning={"a": 1})], "the 'reasoning' of a turn is not text"),
        ([ASK, said("x", weight=2)], "a turn's 'weight' is not between 0 and 1: 2"),
        ([ASK, said("x", loss_weight=-0.5)], "a turn's 'loss_weight' is not between 0 and 1: -0.5"),
        ([ASK, said("x", weight="much")], "a turn's 'weight' is not a number: much"),
        ([ASK, said("x", weight=math.nan)], "a turn's 'weight' is not a number: nan"),
        ([ASK, said("x", weight=[1])], "a turn's 'weight' is not a number: [1]"),
        ([ASK, said("x", train="perhaps")], "a turn's 'train' is neither true nor false"),
        ([ASK, said("x", weight=0)], "none of its replies is marked for training"),
        ([ASK, said("x", train=False)], "none of its replies is marked for training"),
        ([ASK, said("x", masked=True)], "none of its replies is marked for training"),
        ([ASK, said("x", weight=0), ASK, EMPTY], "none of its replies is marked for training"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_dropped_with_its_reason(turns: list[Any], reason: str) -> None:
    found = converted([{"messages": [ASK, REPLY]}, {"messages": turns}])
    assert found.rows == len(found.usable) + len(found.dropped) == 2
    assert found.dropped[0].row == 2
    assert reason in found.dropped[0].reason


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"images": ["a.png"]}, "it contains an image; Nibble trains on text only"),
        ({"image": {"bytes": "…", "path": None}}, "it contains an image"),
        ({"audio": "a.wav"}, "it contains audio"),
        ({"videos": ["a.mp4"]}, "it contains a video"),
        ({"tools": "not json"}, "its 'tools' cannot be read as JSON"),
        ({"tools": [1]}, "its 'tools' are not descriptions of functions"),
        ({"functions": [{"parameters": {}}]}, "a description in its 'functions' has no name"),
        ({"weight": 3}, "its 'weight' is not between 0 and 1: 3"),
        ({"weight": 0}, "none of its replies is marked for training"),
        ({"system": 5}, "its 'system' is a number, not text"),
        ({"prompt": None}, "its 'prompt' is missing"),
        ({"prompt": 5}, "its 'prompt' is a number, not text"),
        ({"prompt": ["a"]}, "a turn is not an object"),
        ({"completion": {"a": 1}}, "its 'completion' is an object, not text"),
        ({"completion": None}, "its reply is empty"),
        ({"prompt": "", "completion": "x"}, "it has no prompt before the reply"),
    ],
)
def test_a_pair_that_cannot_be_used_is_dropped_with_its_reason(extra: dict[str, Any], reason: str) -> None:
    good = {"prompt": "Hi", "completion": "Hello!"}
    found = converted([good, good | extra])
    assert (found.rows, len(found.usable)) == (2, 1)
    assert reason in found.dropped[0].reason


@pytest.mark.parametrize("extra", [{"images": []}, {"image": None}, {"images": [None]}, {"video": ""}, {"tools": []},
                                   {"tools": "[]"}, {"weight": None}, {"weight": ""}, {"weight": 1}, {"system": ""},
                                   {"context": None}, {"anything": {"else": [None, {}]}}])  # fmt: skip
def test_columns_that_say_nothing_change_nothing(extra: dict[str, Any]) -> None:
    found = converted([{"prompt": "Hi", "completion": "Hello!"} | extra])
    assert (found.usable[0].messages, found.usable[0].tools, found.findings) == ([ASK, REPLY], None, [])


@pytest.mark.parametrize(
    ("marks", "row", "weight"),
    [
        ({"weight": 1}, {}, None),
        ({"weight": None, "train": None}, {}, None),
        ({"weight": 0.25}, {}, 0.25),
        ({"loss_weight": 0.5}, {}, 0.5),
        ({"train": True}, {}, None),
        ({"masked": False}, {}, None),
        ({"weight": 0.5, "loss_weight": 0.5}, {}, 0.25),
        ({}, {"weight": 0.5}, 0.5),
        ({}, {"loss_weight": "0.5"}, 0.5),
        ({"weight": 0.5}, {"weight": 0.5}, 0.25),
    ],
)
def test_the_weight_of_a_reply_is_the_product_of_what_is_said(marks: dict, row: dict, weight: float | None) -> None:
    reply = messages({"messages": [ASK, REPLY | marks], **row})[1]
    assert reply.get("weight") == weight


@pytest.mark.parametrize(
    "mark", [{"weight": 0}, {"train": False}, {"trainable": False}, {"training": 0}, {"masked": True}]
)
def test_a_reply_can_be_left_untrained(mark: dict[str, Any]) -> None:
    assert messages({"messages": [ASK, REPLY | mark, ASK, REPLY]}) == [ASK, REPLY | {"weight": 0.0}, ASK, REPLY]


@pytest.mark.parametrize(
    ("turns", "code", "kept"),
    [
        ([ASK | {"train": True}, REPLY], "user-turn-marked", [ASK, REPLY]),
        ([ASK, said(5)], "number-as-text", [ASK, said("5")]),
        ([ASK, said(0.5)], "number-as-text", [ASK, said("0.5")]),
        ([ASK, EMPTY, ASK, REPLY], "empty-reply", [ASK, EMPTY | {"weight": 0.0}, ASK, REPLY]),
        ([REPLY, ASK, REPLY], "assistant-first", [REPLY, ASK, REPLY]),
        ([SYSTEM, REPLY, ASK, REPLY], "assistant-first", [SYSTEM, REPLY, ASK, REPLY]),
        ([ASK, ASK, REPLY], "same-role-twice", [ASK, ASK, REPLY]),
        ([ASK, REPLY, ASK], "after-last-reply", [ASK, REPLY]),
        ([ASK, REPLY, ASK, said("x", weight=0)], "after-last-reply", [ASK, REPLY]),
        ([ASK, said("a\0b")], "nul-character", [ASK, said("a\0b")]),
    ],
)
def test_what_is_odd_but_usable_is_kept_and_said(turns: list[Any], code: str, kept: list[Any]) -> None:
    found = converted([{"messages": turns}])
    assert found.usable[0].messages == kept
    assert [(each.code, each.rows, each.count) for each in found.findings] == [(code, [1], 1)]


@pytest.mark.parametrize(
    ("turns", "code"),
    [
        ([{"role": "alien", "content": "x"}, ASK, REPLY], "unknown-role"),
        ([{"role": "user", "content": [{"type": "image"}]}, REPLY], "holds-media"),
    ],
)
def test_what_can_be_mended_in_the_dropped_is_said(turns: list[Any], code: str) -> None:
    found = converted([{"messages": [ASK, REPLY]}, {"messages": turns}])
    assert [(each.code, each.rows) for each in found.findings] == [(code, [2])]


def test_two_tool_messages_in_a_row_are_usual() -> None:
    tool = {"role": "tool", "content": "2"}
    call = said("", tool_calls=[{"name": "f", "arguments": {}}])
    assert converted([{"messages": [ASK, call, tool, tool, REPLY]}]).findings == []


def test_what_a_tool_gives_back_may_be_anything() -> None:
    call = said("", tool_calls=[{"name": "f", "arguments": {}}])
    for content, text in (({"a": 1}, '{"a": 1}'), (5, "5"), ([1], "[1]"), (None, "")):
        assert messages({"messages": [ASK, call, {"role": "tool", "content": content}, REPLY]})[2]["content"] == text


def test_of_several_answers_the_first_is_learned_and_that_is_said() -> None:
    found = converted([{"question": "Hi", "answers": {"text": ["Hello!", "Hey"], "answer_start": [0, 1]}}])
    assert found.usable[0].messages == [ASK, REPLY]
    assert [(each.code, each.message) for each in found.findings] == [
        ("several-answers", "1 row has several different replies in `answers`: the first is learned."),
        ("unused-detail", "In 1 row, `answers.answer_start` is not used."),
    ]


def test_a_question_without_an_answer_is_dropped() -> None:
    good = {"question": "Hi", "answers": {"text": ["Hello!"], "answer_start": [0]}}
    found = converted([good, {"question": "Hi", "answers": {"text": [], "answer_start": []}}])
    assert found.dropped[0].reason == "it has no answer"


@pytest.mark.parametrize(
    ("turns", "folded", "left_out"),
    [
        ([SYSTEM, ASK, REPLY], [{"role": "user", "content": "Be kind.\n\nHi"}, REPLY], [ASK, REPLY]),
        ([ASK, REPLY], [ASK, REPLY], [ASK, REPLY]),
        (
            [SYSTEM, REPLY, ASK, REPLY],
            [REPLY, {"role": "user", "content": "Be kind.\n\nHi"}, REPLY],
            [REPLY, ASK, REPLY],
        ),
        ([ASK, SYSTEM, REPLY], [{"role": "user", "content": "Hi\n\nBe kind."}, REPLY], [ASK, REPLY]),
        (
            [ASK, REPLY, SYSTEM, ASK, REPLY],
            [ASK, REPLY, {"role": "user", "content": "Be kind.\n\nHi"}, REPLY],
            [ASK, REPLY, ASK, REPLY],
        ),
    ],
)
def test_a_system_prompt_can_go_into_the_question_or_be_left_out(turns: list, folded: list, left_out: list) -> None:
    assert messages({"messages": turns}, system="keep") == turns
    assert messages({"messages": turns}, system="into_question") == folded
    assert messages({"messages": turns}, system="leave_out") == left_out


def test_a_system_prompt_alone_before_a_reply_is_a_question() -> None:
    row = {"messages": [SYSTEM, REPLY]}
    assert messages(row) == [SYSTEM, REPLY]
    assert messages(row, system="into_question") == [{"role": "user", "content": "Be kind."}, REPLY]


def test_plain_text_keeps_its_rules() -> None:
    rows = [{"text": "Once."}, {"text": " "}, {"text": None}, {"text": "x\ud83d"}, {"text": "x", "weight": 0},
            {"text": "x", "weight": 0.5}]  # fmt: skip
    found = converted(rows)
    assert [(each.row, each.text) for each in found.usable] == [(1, "Once."), (6, "x")]
    assert [drop.reason for drop in found.dropped] == [
        "its text is empty",
        "it has no text",
        "it contains half a character, such as an emoji cut in two",
        "its weight is 0, so it is not trained on",
    ]
    assert [each.code for each in found.findings] == ["weight-left-out"]


def test_a_broken_line_is_a_dropped_row_with_its_own_reason() -> None:
    found = converted([{"messages": [ASK, REPLY]}, Unreadable("line 2: a comma is missing")])
    assert [(drop.row, drop.reason) for drop in found.dropped] == [(2, "line 2: a comma is missing")]


def test_a_call_nested_too_deeply_is_dropped() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    call = said("", tool_calls=[{"name": "f", "arguments": deep}])
    found = converted([{"messages": [ASK, REPLY]}, {"messages": [ASK, call]}])
    assert found.dropped[0].reason == "it is nested too deeply for a conversation"


def test_a_finding_lists_a_thousand_rows_and_counts_on() -> None:
    found = converted([{"messages": [ASK, REPLY, ASK]}] * 1500)
    finding = found.findings[0]
    assert (finding.code, finding.count, len(finding.rows)) == ("after-last-reply", 1500, 1000)
    assert finding.message.startswith("1,500 rows continue")


def test_a_turn_whose_type_is_no_word_costs_its_row_and_nothing_else() -> None:
    rows = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]},
        {"messages": [{"type": []}]},
    ]
    found = converted(rows)
    assert [row.row for row in found.usable] == [1] and [row.row for row in found.dropped] == [2]
