"""Every layout becomes the same conversation, says its evidence, and names the others that fit."""

import json
import time
from typing import Any

import pytest

from core.data.conversation import Conversations, Unreadable
from core.data.formats.convert import convert
from core.data.formats.recognise import recognise_layout
from core.data.spill import SpilledConversations
from core.errors import DataError
from core.recipe import DataSettings

ASK = {"role": "user", "content": "Hi"}
REPLY = {"role": "assistant", "content": "Hello!"}
SYSTEM = {"role": "system", "content": "Be kind."}
HUMAN = {"from": "human", "value": "Hi"}
GPT = {"from": "gpt", "value": "Hello!"}
GEMINI_ASK = {"role": "user", "parts": [{"text": "Hi"}]}
GEMINI_REPLY = {"role": "model", "parts": [{"text": "Hello!"}]}
STAGE = {"role": "stage", "content": "Lights."}
BEN = {"role": "ben", "content": "Hello!"}
CHATML = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"


def _turn(role: str, text: str, name: str) -> dict[str, str]:
    """A turn with these keys, the question where `name` is a person's."""
    return {role: name, text: "Hi" if name.lower() in ("user", "human") else "Hello!"}


def converted(rows: list[Any], **settings: Any) -> Conversations:
    chosen = DataSettings(**settings)
    readable = [row for row in rows if not isinstance(row, Unreadable)]
    return convert(rows, recognise_layout(readable, chosen, "file.jsonl"), chosen, "file.jsonl", SpilledConversations())


def codes(found: Conversations) -> list[str]:
    return [finding.code for finding in found.findings]


def reason_for(row: Any, beside: dict[str, Any], **settings: Any) -> str:
    """Why `row` is dropped from a file in which it stands after two good ones."""
    found = converted([beside, beside, row], **settings)
    assert [drop.row for drop in found.dropped] == [3]
    return found.dropped[0].reason


@pytest.mark.parametrize(
    ("row", "format", "evidence"),
    [
        ({"messages": [ASK, REPLY]}, "messages", "`messages` holds role/content turns in 2 of 2 rows"),
        ({"conversations": [ASK, REPLY]}, "messages", "`conversations` holds role/content turns"),
        ({"messages": json.dumps([ASK, REPLY])}, "messages", "`messages` holds role/content turns"),
        ({"Messages": [ASK, REPLY]}, "messages", "`Messages` holds role/content turns"),
        ({"conversations": [HUMAN, GPT]}, "sharegpt", "`conversations` holds from/value turns in 2 of 2 rows"),
        ({"chat": [_turn("role", "value", "user"), _turn("role", "value", "model")]}, "sharegpt", "role/value"),
        ({"dialog": [_turn("speaker", "text", "User"), _turn("speaker", "text", "Bot")]}, "sharegpt", "speaker/text"),
        ({"conversation": [_turn("user", "text", "human"), _turn("user", "text", "bing")]}, "sharegpt", "user/text"),
        ({"conversation": [{"input": "Hi", "output": "Hello!"}]}, "sharegpt", "holds input/output turns"),
        ({"turns": [{"user": "Hi", "assistant": "Hello!"}]}, "sharegpt", "`turns` holds user/assistant turns"),
        ({"conversations": ["Hi", "Hello!"]}, "sharegpt", "`conversations` holds texts by turns, the question first"),
        ({"contents": [GEMINI_ASK, GEMINI_REPLY]}, "sharegpt", "`contents` holds role/parts turns"),
        ({"instruction": "Hi", "output": "Hello!"}, "alpaca", "`instruction` and `output` columns"),
        ({"instruction": "Hi", "input": "", "output": "Hello!"}, "alpaca", "`instruction`, `input` and `output`"),
        ({"instruction": "", "input": "Hi", "output": "Hello!"}, "alpaca", "`instruction`, `input` and `output`"),
        ({"instruction": "Hi", "input": None, "response": "Hello!"}, "alpaca", "`instruction`, `input` and `response`"),
        ({"instruction": "Hi", "context": "", "response": "Hello!", "category": "open_qa"}, "dolly", "`context` and"),
        ({"prompt": "Hi", "completion": "Hello!"}, "prompt-completion", "`prompt` and `completion` columns"),
        ({"Prompt": "Hi", "Completion": "Hello!"}, "prompt-completion", "`Prompt` and `Completion` columns"),
        ({"instruction": "Hi", "response": "Hello!"}, "prompt-completion", "`instruction` and `response` columns"),
        ({"input": "Hi", "output": "Hello!"}, "prompt-completion", "`input` and `output` columns"),
        ({"query": "Hi", "response": "Hello!"}, "prompt-completion", "`query` and `response` columns"),
        ({"text": "Hi", "target": "Hello!"}, "prompt-completion", "`text` and `target` columns"),
        ({"problem": "Hi", "solution": "Hello!"}, "prompt-completion", "`problem` and `solution` columns"),
        ({"inputs": "Hi", "targets": "Hello!"}, "prompt-completion", "`inputs` and `targets` columns"),
        ({"prompt": [ASK], "completion": [REPLY]}, "prompt-completion", "`prompt` and `completion` columns"),
        ({"prompt": [ASK], "completion": "Hello!"}, "prompt-completion", "`prompt` and `completion` columns"),
        ({"prompt": json.dumps([ASK]), "completion": json.dumps([REPLY])}, "prompt-completion", "`prompt` and"),
        ({"question": "Hi", "answer": "Hello!"}, "question-answer", "`question` and `answer` columns"),
        ({"question": "Hi", "answers": {"text": ["Hello!"], "answer_start": [0]}}, "question-answer", "`answers`"),
        ({"question": "Hi", "answers": ["Hello!"]}, "question-answer", "`question` and `answers` columns"),
        ({"prompt": "Hi", "chosen": "Hello!", "rejected": "No."}, "preference", "`chosen` and `rejected` hold"),
        ({"prompt": "Hi", "chosen": REPLY, "rejected": "No."}, "preference", "`chosen` and `rejected` hold"),
        ({"prompt": [ASK], "chosen": [REPLY], "rejected": [REPLY]}, "preference", "`chosen` and `rejected` hold"),
        ({"prompt": "Hi", "chosen": [ASK, REPLY], "rejected": [ASK, ASK]}, "preference", "a better and a worse reply"),
        (
            {"input": {"messages": [ASK]}, "preferred_output": [REPLY], "non_preferred_output": [ASK]},
            "preference",
            "`preferred_output` and `non_preferred_output` hold",
        ),
        ({"chosen": [ASK, REPLY], "rejected": [ASK, ASK]}, "preference", "a better and a worse reply"),
        ({"conversations": [HUMAN], "chosen": GPT, "rejected": GPT}, "preference", "a better and a worse reply"),
        (
            {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi\n\nAssistant: No."},
            "preference",
            "a better and a worse reply",
        ),
        (
            {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello!", "rejected": " No."},
            "preference",
            "a better and a worse reply",
        ),
        ({"prompt": "Hi", "completion": "Hello!", "label": True}, "kto", "`prompt`, `completion` and a true or false"),
        ({"prompt": "Hi", "completion": "Hello!", "label": "True"}, "kto", "a true or false `label`"),
        ({"messages": [ASK, REPLY], "label": True}, "kto", "a list of turns and a true or false `label`"),
        ({"text": "### Human: Hi### Assistant: Hello!"}, "guanaco", "`text` holds `### Human:` / `"),
        ({"text": "### Instruction:\nHi\n\n### Response:\nHello!"}, "guanaco", "`text` holds"),
        ({"text": "<s>[INST] Hi [/INST] Hello! </s>"}, "guanaco", "`text` holds `[INST]` turns in 2 of 2 rows"),
        ({"text": CHATML}, "guanaco", "`text` holds ChatML turns"),
        ({"chat": "USER: Hi\n\n\nASSISTANT: Hello!"}, "guanaco", "`chat` holds `Human:` / `Assistant:` turns"),
        ({"text": "Human: Hi\nAssistant: Hello!"}, "guanaco", "`text` holds `Human:` / `Assistant:` turns"),
    ],
)  # fmt: skip
def test_a_layout_is_recognised_and_becomes_messages(row: dict[str, Any], format: str, evidence: str) -> None:
    found = converted([row, row])
    assert found.format == format
    assert evidence in found.evidence
    assert [each.row for each in found.usable] == [1, 2]
    assert found.usable[0].messages == [ASK, REPLY]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [SYSTEM, ASK, REPLY]},
        {"messages": [{"role": "developer", "content": "Be kind."}, ASK, REPLY]},
        {"system": "Be kind.", "messages": [ASK, REPLY]},
        {"system": "Be kind.", "messages": [SYSTEM, ASK, REPLY]},
        {"system": "Be kind.", "conversations": [HUMAN, GPT]},
        {"conversations": [{"from": "system", "value": "Be kind."}, HUMAN, GPT]},
        {"systemInstruction": {"parts": [{"text": "Be kind."}]}, "contents": [GEMINI_ASK, GEMINI_REPLY]},
        {"system": [{"text": "Be kind."}], "messages": [{"role": "user", "content": [{"text": "Hi"}]}, REPLY]},
        {"conversation": [{"system": "Be kind.", "input": "Hi", "output": "Hello!"}]},
        {"system": "Be kind.", "instruction": "Hi", "input": "", "output": "Hello!"},
        {"system_prompt": "Be kind.", "question": "Hi", "response": "Hello!"},
        {"System Prompt": "Be kind.", "prompt": "Hi", "completion": "Hello!"},
        {"system": "Be kind.", "prompt": "Hi", "chosen": "Hello!", "rejected": "No."},
        {"text": "Be kind.\n### Human: Hi\n### Assistant: Hello!"},
        {"text": "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello! </s>"},
        {"text": CHATML.replace("<|im_start|>user", "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user")},
    ],
)
def test_a_system_prompt_is_found_wherever_it_stands(row: dict[str, Any]) -> None:
    assert converted([row]).usable[0].messages == [SYSTEM, ASK, REPLY]


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ({"instruction": "Sum up.", "input": "A text.", "output": "x"}, "Sum up.\n\nA text."),
        ({"instruction": "Sum up.", "context": "A text.", "response": "x"}, "Sum up.\n\nA text."),
        ({"prompt": "Sum up.", "context": "A text.", "completion": "x"}, "Sum up.\n\nA text."),
        ({"context": "A text.", "question": "Why?", "answer": "x"}, "A text.\n\nWhy?"),
        ({"passage": "A text.", "question": "Why?", "answer": "x"}, "A text.\n\nWhy?"),
        ({"prompt": "Sum up.", "input": "A text.", "target": "x"}, "Sum up.\n\nA text."),
        ({"text": "### Instruction:\nSum up.\n\n### Input:\nA text.\n\n### Response:\nx"}, "Sum up.\n\nA text."),
    ],
)
def test_what_a_question_refers_to_stands_beside_it(row: dict[str, Any], question: str) -> None:
    assert converted([row]).usable[0].messages[0] == {"role": "user", "content": question}


def test_alpaca_history_comes_first_and_is_trained_on() -> None:
    row = {"instruction": "Hi", "input": "", "output": "Hello!", "history": [["A?", "B."]]}
    first = [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."}]
    assert converted([row]).usable[0].messages == [*first, ASK, REPLY]


def test_several_turns_in_a_text_are_split() -> None:
    text = "<s>[INST] A [/INST] B </s><s>[INST] Hi [/INST] Hello! </s>"
    first = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
    assert converted([{"text": text}]).usable[0].messages == [*first, ASK, REPLY]


@pytest.mark.parametrize(
    "text",
    [
        "Just a story about ### and [INST] and nothing else.",
        "Human: Hi\nHuman: Again\nAssistant: Hello!",
        "A story.\nHuman: Hi\nAssistant: Hello!",
        "### Human: a ### Human: b",
        "<|im_start|>user\nHi<|im_end|>",
        "[INST] Hi [/INST] a [/INST] b",
        "before <|im_start|>user\nHi<|im_end|><|im_start|>assistant\nHello!<|im_end|>",
    ],
)
def test_a_text_is_left_whole_where_its_turns_are_not_sure(text: str) -> None:
    found = converted([{"text": text}])
    assert (found.format, found.usable[0].text, found.usable[0].messages) == ("text", text, [])


@pytest.mark.parametrize(
    "text",
    [
        "[INST]" * 50_000,
        " " * 200_000 + "[INST]",
        "[INST] <<SYS>>" * 20_000,
        "<|im_start|>" * 50_000,
        "<|im_start|>user\n" * 50_000,
        "\n \t" * 50_000 + "Assistant:",
        "### " * 100_000,
        "[{" * 100_000,
    ],
)
def test_marks_without_end_are_read_in_no_time(text: str) -> None:
    start = time.process_time()
    assert converted([{"text": text}, {"prompt": text, "completion": text}] * 2).usable
    assert time.process_time() - start < 2


def test_the_prompt_of_a_chosen_conversation_is_not_trained_on() -> None:
    older = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
    worse = {"role": "assistant", "content": "No."}
    rows = [
        {"chosen": [*older, ASK, REPLY], "rejected": [*older, ASK, worse]},
        {"prompt": [*older, ASK], "chosen": [REPLY], "rejected": [worse]},
    ]
    for each in converted(rows).usable:
        assert each.messages == [older[0], older[1] | {"weight": 0.0}, ASK, REPLY]


def test_of_a_preference_pair_the_chosen_reply_is_learned_and_that_is_said() -> None:
    found = converted([{"prompt": "Hi", "chosen": "Hello!", "rejected": "No."}] * 3)
    assert codes(found) == ["rejected-left-out"]
    assert (found.findings[0].count, found.findings[0].rows, found.findings[0].severity) == (3, [1, 2, 3], "note")


def test_a_kto_row_labelled_false_is_dropped_with_that_reason() -> None:
    row = {"prompt": "Hi", "completion": "Hello!"}
    found = converted([row | {"label": True}] * 9 + [row | {"label": False}, row | {"label": None}])
    assert found.format == "kto"
    assert [drop.reason for drop in found.dropped] == [
        "it is labelled false, as a reply not to learn",
        "its layout is prompt-completion, unlike the rest",
    ]
    assert codes(found) == ["mixed-layouts", "kto-dropped"]


def test_labels_of_another_kind_do_not_make_it_kto_and_are_not_passed_over() -> None:
    rows = [{"prompt": "Hi", "completion": "Hello!", "label": number} for number in (0, 1, 2, 3)]
    with pytest.raises(DataError, match="it could be prompt-completion .*, but `label` would be ignored"):
        converted(rows)
    found = converted(rows, format="prompt-completion")
    assert found.findings[0].message == (
        "In 4 rows, `label` looks like the reply, the speaker, the label or a mask and is not used."
    )


@pytest.mark.parametrize(
    "text", ['[{"name": "Ann"}]', '[{"role": "user", "content": "Hi"}]', "[1, 2]", '{"role": "x"}']
)
def test_a_reply_that_is_json_is_learned_as_it_is_written(text: str) -> None:
    row = {"prompt": "Write JSON.", "completion": text}
    assert converted([row]).usable[0].messages[1] == {"role": "assistant", "content": text}


def test_function_calls_and_observations_become_tool_calls_and_tool_messages() -> None:
    call = {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'}
    turns = [HUMAN, call, {"from": "observation", "value": "2"}, GPT]
    tools = [{"name": "add", "description": "Adds.", "parameters": {}}]
    found = converted([{"conversations": turns, "tools": json.dumps(tools)}]).usable[0]
    assert found.messages == [
        ASK,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "2"},
        REPLY,
    ]
    assert found.tools == [{"type": "function", "function": tools[0]}]


@pytest.mark.parametrize(
    "extra",
    [
        {"content": None, "tool_calls": [{"id": "1", "function": {"name": "add", "arguments": '{"a": 1}'}}]},
        {"tool_calls": [{"id": "1", "function": {"name": "add", "arguments": {"a": 1}}}]},
        {"tool_calls": '[{"id": "1", "name": "add", "arguments": {"a": 1}}]'},
        {"tool_calls": {"id": "1", "name": "add", "parameters": {"a": 1}}},
        {"content": None, "function_call": {"id": "1", "name": "add", "arguments": '{"a": 1}'}},
    ],
)
def test_tool_calls_of_a_message_are_brought_into_one_form(extra: dict[str, Any]) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]
    answer = {"role": "tool", "content": "2", "tool_call_id": "1", "name": "add"}
    row = {"messages": [ASK, {"role": "assistant", **extra}, answer, REPLY]}
    found = converted([row])
    assert found.usable[0].messages == [ASK, {"role": "assistant", "content": "", "tool_calls": calls}, answer, REPLY]
    assert found.findings == []


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_kept_beside_the_reply(key: str) -> None:
    thought = REPLY | {"reasoning_content": "He greets."}
    assert converted([{"messages": [ASK, REPLY | {key: "He greets."}]}]).usable[0].messages == [ASK, thought]
    assert converted([{"prompt": "Hi", "completion": "Hello!", key: "He greets."}]).usable[0].messages == [ASK, thought]


def test_the_parts_of_a_content_are_joined() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo!"}]
    thought = [{"type": "thinking", "thinking": "Hm."}]
    row = {"messages": [ASK, {"role": "assistant", "content": [*thought, *parts]}]}
    assert converted([row]).usable[0].messages[1] == REPLY | {"reasoning_content": "Hm."}


def test_the_other_layouts_that_fit_are_named_with_their_evidence() -> None:
    rows = [{"messages": [ASK, REPLY]}] * 3 + [{"instruction": "Hi", "output": "Hello!"}]
    found = recognise_layout(rows, DataSettings(), "file.jsonl")
    assert found.evidence == "`messages` holds role/content turns in 3 of 4 rows"
    assert found.alternatives[0] == {
        "format": "alpaca",
        "evidence": "`instruction` and `output` columns in 1 of 4 rows",
    }
    assert [column["name"] for column in found.columns] == ["messages", "instruction", "output"]
    assert found.columns[1]["example"] == "Hi"


def test_rows_laid_out_unlike_the_rest_are_dropped_and_that_is_said() -> None:
    found = converted([{"messages": [ASK, REPLY]}] * 3 + [{"instruction": "Hi", "output": "Hello!"}])
    assert found.dropped[0].reason == "its layout is alpaca, unlike the rest"
    assert [(each.code, each.rows) for each in found.findings] == [("mixed-layouts", [4])]
    assert found.findings[0].message == "1 row is in a different layout from the rest and is dropped."


def test_the_format_can_be_chosen_by_hand() -> None:
    found = converted([{"text": "### Human: Hi### Assistant: Hello!"}], format="text")
    assert found.usable[0].text == "### Human: Hi### Assistant: Hello!"
    assert found.evidence.startswith("set manually")


@pytest.mark.parametrize(
    ("mapping", "row"),
    [
        ({"reply": "Tell", "prompt": "Ask"}, {"Ask": "Hi", "Tell": "Hello!"}),
        ({"reply": "a", "prompt": "q", "context": "c"}, {"q": "Hi", "a": "Hello!", "c": None}),
        ({"turns": "talk"}, {"talk": [HUMAN, GPT]}),
        (
            {"turns": "talk", "role": "who", "content": "x"},
            {"talk": [_turn("who", "x", "user"), _turn("who", "x", "ai")]},
        ),
        ({"turns": "talk", "roles": {"Ben": "assistant", "stage": "leave out"}}, {"talk": [ASK, STAGE, BEN]}),
    ],
)
def test_columns_and_roles_can_be_mapped_by_hand(mapping: dict[str, Any], row: dict[str, Any]) -> None:
    found = converted([row], format="mapping", mapping=mapping)
    assert (found.format, found.usable[0].messages) == ("mapping", [ASK, REPLY])


def test_a_mapping_may_name_plain_text_and_a_system_prompt() -> None:
    assert converted([{"story": "Once."}], format="mapping", mapping={"text": "story"}).usable[0].text == "Once."
    found = converted([{"s": "Be kind.", "q": "Hi", "a": "Hello!"}], format="mapping",
                      mapping={"system": "s", "prompt": "q", "reply": "a"})  # fmt: skip
    assert found.usable[0].messages == [SYSTEM, ASK, REPLY]


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({}, "no column to learn from"),
        ({"reply": "a", "text": "b"}, "reply and text at once"),
        ({"reply": "a"}, "no prompt"),
        ({"reply": "a", "prompt": "z"}, "file.jsonl has no column 'z', which data.mapping.prompt names"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(mapping: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        converted([{"a": "x", "b": "y"}], format="mapping", mapping=mapping)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"a": 1, "b": 2}], "file.jsonl: its layout is not recognised. Its columns are a, b; supported are"),
        ([{}], "not objects"),
        (
            [{"prompt": "a", "completion": ""}] * 2,
            "none of its 2 rows can be used as prompt-completion. Row 1: its reply",
        ),
    ],
)
def test_a_file_without_a_usable_row_is_refused_in_a_sentence(rows: list[Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        converted(rows)
