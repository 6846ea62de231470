"""One row of each layout that a tool or a service documents: read as it is meant there, what is left out is said."""

import json
from typing import Any

import pytest

from core.data.conversation import Conversations
from core.data.formats.convert import convert
from core.data.formats.recognise import recognise_layout
from core.data.spill import SpilledConversations
from core.errors import DataError
from core.recipe import DataSettings

ASK = {"role": "user", "content": "What is red?"}
REPLY = {"role": "assistant", "content": "A ball is red."}
WORSE = {"role": "assistant", "content": "Soup is red."}
SYSTEM = {"role": "system", "content": "Be kind."}
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "box"}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
FOUND = {"role": "tool", "content": "a ball"}


def converted(row: dict[str, Any], **chosen: Any) -> Conversations:
    settings = DataSettings(**chosen)
    return convert(
        [row], recognise_layout([row], settings, "file.jsonl"), settings, "file.jsonl", SpilledConversations()
    )


def left_out(found: Conversations) -> list[str]:
    """The codes of what was found, with what it names."""
    return [f"{each.code}: {', '.join(each.message.split('`')[1::2])}" for each in found.findings]


def _with_id(call: dict[str, Any], name: str) -> dict[str, Any]:
    return {"id": name, **call}


@pytest.mark.parametrize(
    ("row", "messages", "tools", "said"),
    [
        # OpenAI, https://platform.openai.com/docs/guides/fine-tuning
        ({"messages": [SYSTEM, ASK, REPLY], "parallel_tool_calls": False}, [SYSTEM, ASK, REPLY], None,
         ["unused-detail: parallel_tool_calls"]),
        ({"input": {"messages": [ASK], "tools": [LOOK]}, "preferred_output": [REPLY], "non_preferred_output": [WORSE]},
         [ASK, REPLY], [LOOK], ["rejected-left-out: non_preferred_output"]),
        # its Responses: a call and its result stand between the turns without a role
        ({"messages": [ASK, {"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"at": "box"}'},
                       {"type": "function_call_output", "call_id": "c", "output": "a ball"}, REPLY]},
         [ASK, CALLS | {"tool_calls": [_with_id(CALL, "c")]}, FOUND | {"tool_call_id": "c"}, REPLY], None, []),
        # Anthropic's messages, with its tools
        ({"system": "Be kind.",
          "messages": [
              {"role": "user", "content": [{"type": "text", "text": "What is red?"}]},
              {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "x"},
                                                {"type": "text", "text": "Let me look."},
                                                {"type": "tool_use", "id": "t", "name": "look",
                                                 "input": {"at": "box"}}]},
              {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t",
                                            "content": [{"type": "text", "text": "a ball"}]},
                                           {"type": "text", "text": "Well?"}]},
              REPLY],
          "tools": [{"name": "look", "input_schema": {"type": "object"}}]},
         [SYSTEM, ASK, {"role": "assistant", "content": "Let me look.", "reasoning_content": "Hm.",
                        "tool_calls": [_with_id(CALL, "t")]},
          FOUND | {"tool_call_id": "t"}, {"role": "user", "content": "Well?"}, REPLY],
         [LOOK], ["unused-detail: messages[].content[].signature"]),
        # Amazon Bedrock's Converse
        ({"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "Be kind."}],
          "messages": [{"role": "user", "content": [{"text": "What is red?"}]},
                       {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "look",
                                                                      "input": {"at": "box"}}}]},
                       {"role": "user", "content": [{"toolResult": {"toolUseId": "t",
                                                                    "content": [{"text": "a ball"}]}}]},
                       {"role": "assistant", "content": [{"text": "A ball is red."}]}],
          "toolConfig": {"tools": [{"toolSpec": {"name": "look", "inputSchema": {"json": {"type": "object"}}}}]}},
         [SYSTEM, ASK, CALLS | {"tool_calls": [_with_id(CALL, "t")]}, FOUND | {"tool_call_id": "t"}, REPLY],
         [LOOK], ["unused-detail: schemaVersion"]),
        # Vertex AI, Gemini
        ({"systemInstruction": {"role": "system", "parts": [{"text": "Be kind."}]},
          "contents": [{"role": "user", "parts": [{"text": "What is red?"}]},
                       {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {"at": "box"}}}]},
                       {"role": "user", "parts": [{"functionResponse": {"name": "look",
                                                                        "response": "a ball"}}]},
                       {"role": "model", "parts": [{"text": "Hm.", "thought": True}, {"text": "A ball is red."}]}],
          "tools": [{"functionDeclarations": [{"name": "look", "parameters": {"type": "object"}}]}],
          "generationConfig": {"temperature": 1}},
         [SYSTEM, ASK, CALLS, FOUND | {"name": "look"}, REPLY | {"reasoning_content": "Hm."}],
         [LOOK], ["unused-detail: generationConfig"]),
        # Cohere
        ({"messages": [{"role": "System", "content": "Be kind."}, {"role": "User", "content": "What is red?"},
                       {"role": "Chatbot", "content": "A ball is red."}]}, [SYSTEM, ASK, REPLY], None, []),
        # LLaMA-Factory, its first layouts and its second (v1)
        ({"instruction": "What is", "input": "red?", "output": "A ball is red.", "system": "Be kind.",
          "history": [["Hi", "Hello!"]]},
         [SYSTEM, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"},
          {"role": "user", "content": "What is\n\nred?"}, REPLY], None, []),
        ({"conversations": [{"from": "human", "value": "What is red?"}], "chosen": {"from": "gpt", "value":
          "A ball is red."}, "rejected": {"from": "gpt", "value": "No."}}, [ASK, REPLY], None,
         ["rejected-left-out: rejected"]),
        ({"messages": [{"role": "system", "content": [{"type": "text", "value": "Be kind."}], "loss_weight": 0.0},
                       {"role": "user", "content": [{"type": "text", "value": "What is red?"}], "loss_weight": 0.0},
                       {"role": "assistant", "content": [{"type": "reasoning", "value": "Hm."},
                                                         {"type": "tool_call", "value":
                                                          '{"name": "look", "arguments": {"at": "box"}}'}],
                        "loss_weight": 1.0},
                       {"role": "tool", "content": [{"type": "text", "value": "a ball"}], "loss_weight": 0.0},
                       {"role": "assistant", "content": [{"type": "text", "value": "A ball is red."}],
                        "loss_weight": 1.0}],
          "tools": json.dumps([LOOK["function"]])},
         [SYSTEM, ASK, CALLS | {"reasoning_content": "Hm."}, FOUND, REPLY], [LOOK], []),
        ({"chosen_messages": [ASK, REPLY], "rejected_messages": [ASK, WORSE]}, [ASK, REPLY], None,
         ["rejected-left-out: rejected_messages"]),
        # ms-swift, XTuner
        ({"query": "What is red?", "response": "A ball is red.", "history": [["Hi", "Hello!"]], "system": "Be kind."},
         [SYSTEM, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}, ASK, REPLY], None, []),
        ({"messages": [ASK, REPLY, ASK, REPLY], "rejected_response": "Soup is red."},
         [ASK, REPLY | {"weight": 0.0}, ASK, REPLY], None, ["rejected-left-out: rejected_response"]),
        ({"messages": [ASK, REPLY | {"loss": False}, ASK, REPLY | {"loss": True}]},
         [ASK, REPLY | {"weight": 0.0}, ASK, REPLY], None, []),
        ({"messages": [ASK, REPLY | {"loss": 0.35}]}, [ASK, REPLY], None, ["unused-detail: messages[].loss"]),
        # trl
        ({"messages": [ASK, REPLY], "chat_template_kwargs": {"enable_thinking": False}}, [ASK, REPLY], None,
         ["unused-text: chat_template_kwargs"]),
        # axolotl
        ({"prompt": "What is red?", "generation": "A ball is red."}, [ASK, REPLY], None, []),
        ({"INSTRUCTION": "What is red?", "RESPONSE": "A ball is red."}, [ASK, REPLY], None, []),
        ({"article": "What is red?", "summary": "A ball is red."}, [ASK, REPLY], None, []),
        ({"instruction": "What is red?", "output": "A ball is red.", "reflection": "That is not all of it."},
         [ASK, REPLY], None, ["unused-text: reflection"]),
        # GLM-4's finetune_demo: the tools stand in the system message
        ({"messages": [{"role": "system", "content": "", "tools": [LOOK]}, ASK,
                       {"role": "observation", "content": "a ball"}, REPLY]},
         [{"role": "system", "content": ""}, ASK, FOUND, REPLY], [LOOK], []),
        ({"messages": [ASK | {"tools": [LOOK]}, REPLY]}, [ASK, REPLY], [LOOK], []),
        ({"messages": [ASK | {"tools": [LOOK]}, REPLY], "tools": [{"name": "other"}]}, [ASK, REPLY],
         [{"type": "function", "function": {"name": "other"}}], ["unused-text: messages[].tools"]),
        # xLAM, as objects and as JSON in texts
        ({"query": "What is red?", "answers": [CALL["function"]], "tools": [LOOK["function"]]}, [ASK, CALLS], [LOOK],
         []),
        ({"query": "What is red?", "answers": json.dumps([CALL["function"]]), "tools": json.dumps([LOOK["function"]])},
         [ASK, CALLS], [LOOK], []),
        # RAGAS, before and after its columns were renamed
        ({"question": "What is red?", "contexts": ["One.", "Two."], "answer": "A ball is red.",
          "ground_truth": "A ball is red."},
         [{"role": "user", "content": "One.\n\nTwo.\n\nWhat is red?"}, REPLY], None, ["unused-detail: ground_truth"]),
        ({"user_input": "What is red?", "retrieved_contexts": ["One."], "response": "A ball is red."},
         [{"role": "user", "content": "What is red?\n\nOne."}, REPLY], None, []),
        # UltraChat, counsel chat, XSum, SAMSum, a mailbox
        ({"id": "0", "data": ["What is red?", "A ball is red."]}, [ASK, REPLY], None, ["unused-detail: id"]),
        ({"Context": "What is red?", "Response": "A ball is red."}, [ASK, REPLY], None, []),
        ({"document": "What is red?", "summary": "A ball is red.", "id": "1"}, [ASK, REPLY], None,
         ["unused-detail: id"]),
        ({"subject": "Red", "body": "What is red?", "reply": "A ball is red."}, [ASK, REPLY], None,
         ["unused-detail: subject"]),
        # reasoning in a column of its own, for the only reply; for one of several nobody knows which
        ({"messages": [ASK, REPLY], "reasoning_content": "Hm."}, [ASK, REPLY | {"reasoning_content": "Hm."}], None, []),
        ({"messages": [ASK, REPLY, ASK, REPLY], "reasoning_content": "Hm, I see it there."}, [ASK, REPLY, ASK, REPLY],
         None, ["unused-text: reasoning_content"]),
    ],
)  # fmt: skip
def test_a_documented_row_is_read_as_its_makers_mean_it(
    row: dict[str, Any], messages: list[Any], tools: list[Any] | None, said: list[str]
) -> None:
    found = converted(row)
    assert found.usable[0].messages == messages
    assert found.usable[0].tools == tools
    assert left_out(found) == said


@pytest.mark.parametrize(
    ("part", "text", "said"),
    [
        # Telegram mixes texts and parts of many types
        ({"type": "link", "text": "https://example.org"}, "See https://example.org!", ["strange-part: link"]),
        ({"type": "blob", "text": "a box", "size": 4}, "See a box!", ["strange-part: blob",
                                                                      "unused-detail: messages[].content[].size"]),
        ({"type": "step-start"}, "See !", ["part-left-out: step-start"]),
        ({"type": "source", "payload": "Somebody wrote this here."}, "See !",
         ["part-left-out: source", "unused-text: messages[].content[].payload"]),
    ],
)  # fmt: skip
def test_a_part_of_an_unknown_type_costs_no_more_than_itself(part: dict[str, Any], text: str, said: list[str]) -> None:
    found = converted({"messages": [ASK, {"role": "assistant", "content": ["See ", part, "!"]}]})
    assert found.usable[0].messages == [ASK, {"role": "assistant", "content": text}]
    assert left_out(found) == said


def test_the_weight_of_a_turn_goes_to_all_that_it_says() -> None:
    use = {"type": "tool_use", "id": "t", "name": "look", "input": {"at": "box"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "a ball"}
    said = {"role": "assistant", "content": [use, result, {"type": "text", "text": "It is."}], "weight": 0}
    found = converted({"messages": [ASK, said, ASK, REPLY]})
    assert [message.get("weight") for message in found.usable[0].messages] == [None, 0.0, None, 0.0, None, None]
    assert found.findings == []


def test_an_entry_in_which_nobody_speaks_costs_no_more_than_itself() -> None:
    call = {"id": 3, "type": "service", "actor": "Bo", "action": "phone_call", "text": ""}
    found = converted({"messages": [ASK, call, REPLY]})
    assert found.usable[0].messages == [ASK, REPLY]
    assert left_out(found) == [
        "turn-left-out: service",
        "unused-detail: messages[].action, messages[].actor, messages[].id, messages[].type",
    ]


def test_a_speaker_may_be_an_object_and_turns_may_stand_under_any_name() -> None:
    turns = [{"author": {"role": "user", "id": 1}, "content": "What is red?"},
             {"author": {"role": "assistant"}, "content": "A ball is red."}]  # fmt: skip
    found = converted({"thread_of_it": turns})
    assert (found.format, found.usable[0].messages) == ("sharegpt", [ASK, REPLY])
    assert left_out(found) == ["unused-detail: thread_of_it[].author.id"]


def test_speakers_without_a_meaning_are_asked_for() -> None:
    row = {
        "name": "Bo",
        "messages": [{"from": "Ann", "text": "What is red?"}, {"from": "Bo", "text": "A ball is red."}],
    }
    with pytest.raises(DataError, match="unknown role 'Ann'. Set data.mapping.roles to the role of each speaker"):
        converted(row)
    found = converted(row, mapping={"roles": {"Ann": "user", "Bo": "assistant"}})
    assert found.usable[0].messages == [ASK, REPLY]


@pytest.mark.parametrize(
    ("ranges", "kept"),
    [
        ([(0, 13, True)], {}),
        ([(0, 4, True), (5, 13, True)], {}),
        ([(0, 13, False)], {"weight": 0.0}),
        ([(0, 4, True)], {"train_detail": [{"begin_offset": 0, "end_offset": 4, "train": True}]}),
    ],
)
def test_the_characters_that_are_trained_on_go_with_their_reply(
    ranges: list[tuple[int, int, bool]], kept: dict[str, Any]
) -> None:
    detail = [{"begin_offset": begin, "end_offset": end, "train": train} for begin, end, train in ranges]
    found = converted({"messages": [ASK, REPLY | {"train_detail": detail}, ASK, REPLY]})
    assert found.usable[0].messages == [ASK, REPLY | kept, ASK, REPLY]
    assert found.findings == []


@pytest.mark.parametrize(
    ("detail", "reason"),
    [
        ([{"begin_offset": 0, "end_offset": 14, "train": True}], "reaches beyond its text"),
        ([{"begin_offset": 4, "end_offset": 2, "train": True}], "reaches beyond its text"),
        ([{"begin_offset": 0, "end_offset": 2}], "is not a list of ranges"),
        ("0-3", "is not a list of ranges"),
    ],
)
def test_ranges_that_cannot_be_are_no_permission_to_train_on_all(detail: Any, reason: str) -> None:
    good = {"messages": [ASK, REPLY]}
    settings = DataSettings()
    rows = [good, {"messages": [ASK, REPLY | {"train_detail": detail}]}]
    found = convert(rows, recognise_layout(rows, settings, "f"), settings, "f", SpilledConversations())
    assert [drop.row for drop in found.dropped] == [2] and reason in found.dropped[0].reason
