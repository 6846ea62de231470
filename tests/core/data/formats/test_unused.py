"""Whatever a row holds and is not used is said by name; no layout is taken that would leave out what a row is about."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.conversation import Conversations
from core.data.formats.convert import convert
from core.data.formats.recognise import recognise_layout
from core.data.formats.unused import is_empty
from core.data.spill import SpilledConversations
from core.errors import DataError
from core.recipe import DataSettings

ASK = {"role": "user", "content": "What is red?"}
REPLY = {"role": "assistant", "content": "A ball is red."}
PAIR = {"prompt": "What is red?", "completion": "A ball is red."}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": {"at": "box"}}}
LONG = "Somebody wrote this sentence, and it ought not to go without a word."


def converted(rows: list[Any], **chosen: Any) -> Conversations:
    wanted = DataSettings(**chosen)
    return convert(rows, recognise_layout(rows, wanted, "file.jsonl"), wanted, "file.jsonl", SpilledConversations())


def said(found: Conversations) -> list[tuple[str, str, str]]:
    return [(each.severity, each.code, each.message) for each in found.findings]


PARTS = [
    {"type": "text", "text": "Let me look."},
    {"type": "tool_use", "id": "t", "name": "look", "input": {"at": "b"}},
]
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "a ball"}]}
GEMINI = [
    {"role": "user", "parts": [{"text": "What is red?"}]},
    {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {"at": "box"}}}]},
    {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"a": "ball"}}}]},
    {"role": "model", "parts": [{"text": "A ball is red."}]},
]
NODES = {
    "r": {"id": "r", "message": None, "parent": None, "children": ["u"]},
    "u": {"id": "u", "message": {"id": "u", "author": {"role": "user"}, "content": {"content_type": "text", "parts":
          ["What is red?"]}}, "parent": "r", "children": ["a"]},
    "a": {"id": "a", "message": {"id": "a", "author": {"role": "assistant"}, "content": {"content_type": "text",
          "parts": ["A ball is red."]}}, "parent": "u", "children": []},
}  # fmt: skip
TREE = {
    "role": "prompter",
    "text": "What is red?",
    "replies": [{"role": "assistant", "text": "A ball.", "replies": []}],
}
# One row of each layout (and the format to choose for it), with every kind of object that a layout looks into.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "messages": ("messages", {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "What is red?"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "a ball", "tool_call_id": "1"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "A."}]},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}],
    }),
    "anthropic": ("messages", {"system": "Be kind.", "messages": [ASK, {"role": "assistant", "content": PARTS},
                                                                {"role": "user", "content": [RESULT]}, REPLY]}),
    "gemini": ("sharegpt", {"systemInstruction": {"parts": [{"text": "Be kind."}]}, "contents": GEMINI}),
    "sharegpt": ("sharegpt", {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}),
    "a pair a turn": ("sharegpt", {"conversation": [{"input": "Hi", "output": "Hello!"}]}),
    "chatgpt": ("sharegpt", {"mapping": NODES, "current_node": "a"}),
    "a tree": ("sharegpt", {"prompt": TREE}),
    "open webui": ("messages", {"chat": {"messages": [ASK, REPLY], "history": {"messages": {"1": ASK, "2": REPLY}}}}),
    "alpaca": ("alpaca", {"instruction": "Add.", "input": "1 and 1", "output": "2",
                          "history": [{"question": "a", "answer": "b"}]}),
    "dolly": ("dolly", {"instruction": "Sum up.", "context": "A text.", "response": "It is a text."}),
    "prompt-completion": ("prompt-completion", {"prompt": [ASK], "completion": [REPLY]}),
    "question-answer": ("question-answer", {"question": "Why?", "answers": {"text": ["So."]}}),
    "preference": ("preference", {"prompt": "Hi", "chosen": [REPLY], "rejected": "No."}),
    "openai's preference": ("preference", {"input": {"messages": [ASK]}, "preferred_output": [REPLY],
                                           "non_preferred_output": [REPLY]}),
    "kto": ("kto", {"prompt": "Hi", "completion": "Hello!", "label": True}),
    "guanaco": ("guanaco", {"text": "### Human: Hi### Assistant: Hello!"}),
    "text": ("text", {"text": "Once upon a time."}),
}  # fmt: skip
# Objects that are handed on as they are.
_WHOLE = {"tools", "arguments", "non_preferred_output", "args", "response"}


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The row itself, and every object within it that a layout takes apart; objects by name are many, not one."""
    if isinstance(value, list):
        return [each for part in value for each in objects_in(part)]
    if not isinstance(value, dict) or "at" in value:
        return []
    within = [each for key, part in value.items() if key not in _WHOLE for each in objects_in(part)]
    by_name = len(value) > 1 and all(isinstance(part, dict) for part in value.values())
    return within if by_name else [value, *within]


simple = st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(["", " ", LONG, "a word"])
values = st.recursive(
    simple, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
_NAMES = "label answer_key speaker author id url created_at score metadata note remark comment x Label ground_truth"
names = st.sampled_from(_NAMES.split()) | st.text("abcdefgh_", min_size=3, max_size=12)


@st.composite
def rows_with_extras(draw: Any) -> tuple[str, dict[str, Any], list[str]]:
    """A layout's name, a row of it with more keys in it than the layout knows, and those that hold something."""
    name, row = copy.deepcopy(draw(st.sampled_from(list(ROWS.values()))))
    extras, holders = [], objects_in(row)
    for _ in range(draw(st.integers(1, 4))):
        holder = draw(st.sampled_from(holders))
        key, value = draw(names), draw(values)
        if key.lower() in {other.lower() for other in holder} or (holder is row and key == "label"):
            continue
        holder[key] = value
        if not is_empty(value):
            extras.append(key)
    return name, row, extras


@settings(max_examples=400, deadline=None)
@given(rows_with_extras())
def test_each_key_that_is_not_used_is_named(drawn: tuple[str, dict[str, Any], list[str]]) -> None:
    name, row, extras = drawn
    try:
        found = converted([row], format=name)
    except DataError as error:  # a key that was put in may say who speaks, as some layouts do, and nobody knows them
        assert "unknown role" in str(error) or any(f"'{key}'" in str(error) for key in extras)
        return
    messages = " ".join(each.message for each in found.findings)
    for key in extras:
        assert f"`{key}`" in messages or f".{key}`" in messages, (key, messages)
    assert all(each.rows == [1] and each.count == 1 for each in found.findings)


@settings(max_examples=200, deadline=None)
@given(rows_with_extras())
def test_a_layout_that_is_found_leaves_out_no_answer_at_the_top(drawn: tuple[str, dict[str, Any], list[str]]) -> None:
    _, row, extras = drawn
    try:
        found = converted([row])
    except DataError as error:
        by_name = "would be ignored" in str(error) and any(key in str(error) for key in extras)
        known = ("a turn has no", "unknown role", "labelled false")  # the last of a row that a label makes KTO
        assert by_name or any(reason in str(error) for reason in known)
        return
    assert not [each for each in found.findings if each.code == "unused-answer"]


@pytest.mark.parametrize("name", list(ROWS))
def test_a_row_that_is_used_whole_has_no_such_finding(name: str) -> None:
    layout, row = ROWS[name]
    named = [each.message for each in converted([row], format=layout).findings if each.code.startswith("unused")]
    assert named == (["In 1 row, `mapping[].message.id` is not used."] if name == "chatgpt" else [])


@pytest.mark.parametrize(
    ("row", "layout", "column"),
    [
        ({"role": "user", "content": LONG}, "text", "role"),
        ({"text": LONG, "label": 0}, "text", "label"),
        ({"text": LONG, "author": {"id": "1", "name": "ann"}}, "text", "author"),
        ({"text": LONG, "user": "U01", "ts": "1704.0"}, "text", "user"),
        ({"text": LONG, "speaker_id": 3}, "text", "speaker_id"),
        ({"text": LONG, "sentiment": "good"}, "text", "sentiment"),
        ({"text": LONG, "category": "films"}, "text", "category"),
        ({"text": LONG, "goldLabel": "x"}, "text", "goldLabel"),
        ({"content": LONG, "options": ["a kite", "a cat"]}, "text", "options"),
        ({"question": "What is red?", "answer": 0, "choices": ["a ball", "a kite"]}, "question-answer", "choices"),
        ({"problem": "1 + 1", "solution": "It is 2, for …", "answer": "2 or so"}, "prompt-completion", "solution"),
        ({**PAIR, "label": "spam"}, "prompt-completion", "label"),
        ({**PAIR, "speaker": "Ann"}, "prompt-completion", "speaker"),
        ({**PAIR, "ground_truth": "a ball, or a kite"}, "prompt-completion", "ground_truth"),
        ({"messages": [ASK, REPLY], "label": "spam"}, "messages", "label"),
        ({"messages": [ASK, REPLY], "expected_answer": "a red ball, surely"}, "messages", "expected_answer"),
        ({"messages": [ASK, {**REPLY, "label": 1}]}, "messages", "messages[].label"),
        ({"messages": [ASK, {**REPLY, "ignore": True}]}, "messages", "messages[].ignore"),
        ({"messages": [ASK, {**REPLY, "mask": 1}]}, "messages", "messages[].mask"),
        ({"text": LONG, "metadata": {"speaker": "Ann", "page": 4}}, "text", "metadata.speaker"),
        ({**PAIR, "extra_info": {"answer": "a red ball, surely"}}, "prompt-completion", "extra_info.answer"),
    ],
)
def test_what_looks_like_the_answer_the_speaker_or_the_label_is_never_passed_over(
    row: dict[str, Any], layout: str, column: str
) -> None:
    with pytest.raises(DataError) as refusal:
        converted([row] * 3)
    assert f"it could be {layout} " in str(refusal.value)
    assert f"`{column}` would be ignored" in str(refusal.value)
    assert f"choose the format {layout}." in str(refusal.value)
    found = converted([row] * 3, format=layout)  # the person says so: then it is said, and no error
    message = f"In 3 rows, `{column}` looks like the reply, the speaker, the label or a mask and is not used."
    assert ("warning", "unused-answer", message) in said(found)


def test_a_mapping_to_begin_with_stands_in_the_refusal() -> None:
    with pytest.raises(DataError, match=r"format: mapping; such as prompt: text, reply: Label\)"):
        converted([{"text": LONG, "Label": 1}])
    with pytest.raises(DataError, match=r"not recognised.*format: mapping; such as prompt: review, reply: sentiment\)"):
        converted([{"review": LONG, "sentiment": "good"}])
    found = converted([{"text": LONG, "Label": 1}], format="mapping", mapping={"prompt": "text", "reply": "Label"})
    assert found.usable[0].messages == [{"role": "user", "content": LONG}, {"role": "assistant", "content": "1"}]


def test_one_turn_a_row_without_a_conversation_says_what_is_missing() -> None:
    said_to_do = "`role` is the speaker, `content` the text.*such as conversation: …, role: role, content: content"
    with pytest.raises(DataError, match=said_to_do):
        converted([ASK, REPLY])


def test_an_answer_that_comes_late_in_the_file_is_an_error() -> None:
    found = converted([PAIR] * 3 + [PAIR | {"remark": 1}] * 3)
    assert said(found) == [("note", "unused-detail", "In 3 rows, `remark` is not used.")]
    rows = [PAIR] * 3 + [PAIR | {"gold": "another answer, not this"}] * 2
    wanted = DataSettings()
    late = convert(rows, recognise_layout(rows[:3], wanted, "file.jsonl"), wanted, "file.jsonl", SpilledConversations())
    assert said(late)[0][:2] == ("error", "unused-answer")
    assert late.findings[0].rows == [4, 5]


@pytest.mark.parametrize(
    ("row", "layout"),
    [
        ({"id": 1, "url": "https://example.org", "title": "Red", "text": LONG}, "text"),
        ({"text": LONG, "meta": {"source": "web"}, "timestamp": "2024-01-01", "language": "en"}, "text"),
        ({"text": LONG, "language_score": 0.9, "token_count": 12, "dump": "CC-1"}, "text"),
        ({"instruction": "Hi", "context": "", "response": "Hello!", "category": "open_qa"}, "dolly"),
        ({"instruction": "Hi", "input": "", "output": "Hello!", "text": "Below …\nHi\nHello!"}, "alpaca"),
        ({"messages": [ASK, REPLY], "prompt": "What is red?", "prompt_id": "f1"}, "messages"),
        ({"messages": [ASK, REPLY], "source": "web", "num_turns": 2, "answer": "A ball is red."}, "messages"),
        ({"prompt": "Hi", "chosen": "Hello!", "rejected": "No.", "score_chosen": 5, "margin": 1.5}, "preference"),
        ({"question": "Hi", "answer": "Hello!", "answer_id": 4, "response_time": 2}, "question-answer"),
    ],
)  # fmt: skip
def test_columns_about_a_row_do_not_stand_in_its_way(row: dict[str, Any], layout: str) -> None:
    found = converted([row] * 3)
    assert found.format == layout
    assert {each.severity for each in found.findings if each.code.startswith("unused")} <= {"note", "warning"}


def test_what_somebody_wrote_weighs_more_than_an_id() -> None:
    row = {**PAIR, "id": 7, "remark": LONG, "prompt_again": "What is red?", "tags_of_it": ["a", "b"]}
    assert said(converted([row] * 2)) == [
        ("warning", "unused-text", "In 2 rows, `remark` is not used: the model does not see it."),
        ("note", "unused-detail", "In 2 rows, `id`, `prompt_again` and `tags_of_it` are not used."),
    ]


def test_rows_are_counted_for_each_name_and_for_all() -> None:
    rows = [PAIR | {"id": 1}, PAIR | {"id": 2, "url": "a"}, PAIR, PAIR | {"url": None, "x": ""}]
    found = converted(rows)
    assert said(found) == [("note", "unused-detail", "In 2 rows, `id` and `url` (in 1) are not used.")]
    assert found.findings[0].rows == [1, 2]


def test_two_columns_of_one_name_are_not_taken_for_one() -> None:
    assert said(converted([{**PAIR, "Prompt": LONG}])) == [
        ("warning", "unused-text", "In 1 row, `Prompt` is not used: the model does not see it.")
    ]


def test_names_without_end_are_counted_and_the_first_said() -> None:
    found = converted([PAIR | {f"n{at}": at} for at in range(5000)])
    (finding,) = found.findings
    assert finding.count == 5000 and len(finding.rows) == 1000
    assert finding.message.count("`") == 24 and "1,989 more are not used" in finding.message


def test_a_column_of_many_values_is_looked_at_quickly() -> None:
    row = {**PAIR, "remark": [LONG] * 20_000, "note": {str(at): LONG for at in range(20_000)}}
    assert json.dumps(said(converted([row])))
