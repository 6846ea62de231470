"""A text with a model family's own marks is taken apart: what its template puts together comes out as it went in."""

import time
from pathlib import Path
from typing import Any

import pytest

from core.data.conversation import Conversations
from core.data.formats.convert import convert
from core.data.formats.markers import split_text
from core.data.formats.recognise import recognise_layout
from core.data.spill import SpilledConversations
from core.recipe import DataSettings

SYSTEM = {"role": "system", "content": "Be kind."}
TALK = [
    {"role": "user", "content": "What is red?\n\nSay it: now"},
    {"role": "assistant", "content": "A ball is red.\n\n- and round"},
    {"role": "user", "content": "And blue?"},
    {"role": "assistant", "content": "A kite."},
]
# Of trl's templates those that write nothing of their own beside what is said; with the tokens of their tokenizers.
TEMPLATES = {
    "cohere": ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
    "deepseek_r1_distill": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "deepseekv3": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "gemma": ("<bos>", "<eos>"),
    "gemma3": ("<bos>", "<eos>"),
    "gemma4": ("<bos>", "<eos>"),
    "gptoss": ("<|startoftext|>", "<|return|>"),
    "lfm2": ("<|startoftext|>", "<|im_end|>"),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
    "llama3_1": ("<|begin_of_text|>", "<|eot_id|>"),
    "llama3_2": ("<|begin_of_text|>", "<|eot_id|>"),
    "phi3": ("<s>", "<|endoftext|>"),
    "phi3_5": ("<s>", "<|endoftext|>"),
    "qwen2_5": ("", "<|im_end|>"),
    "qwen3_instruct_2507": ("", "<|im_end|>"),
}
WITHOUT_SYSTEM = {"gemma", "gemma3"}  # refused, or put into the first question


def rendered(name: str, messages: list[dict[str, str]]) -> str:
    """What trl's template of that name makes of the messages."""
    import trl
    from transformers.utils.chat_template_utils import render_jinja_template

    template = (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
    begin, end = TEMPLATES[name]
    return str(render_jinja_template([messages], chat_template=template, bos_token=begin, eos_token=end)[0][0])


def converted(text: str) -> Conversations:
    rows, settings = [{"text": text}], DataSettings()
    return convert(rows, recognise_layout(rows, settings, "file.jsonl"), settings, "file.jsonl", SpilledConversations())


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_what_a_template_puts_together_is_taken_apart(name: str) -> None:
    talk = TALK if name in WITHOUT_SYSTEM else [SYSTEM, *TALK]
    text = rendered(name, talk)
    found = split_text(text)
    assert found is not None
    assert found[1] == talk
    assert rendered(name, found[1]) == text


@pytest.mark.parametrize(
    ("text", "talk"),
    [
        ("<|user|>\nWhat is red?</s>\n<|assistant|>\nA ball.</s>\n", None),  # Zephyr, TinyLlama
        ("<|system|>\nBe kind.</s>\n<|user|>\nWhat is red?</s>\n<|assistant|>\nA ball.</s>", "system"),
        ("<|user|>\nWhat is red?\n<|assistant|>\nA ball.<|endoftext|>\n", None),  # Tulu, OLMo
        ("[gMASK]<sop><|user|>\nWhat is red?<|assistant|>\nA ball.", None),  # GLM-4
        ("<|im_start|>user<|im_sep|>What is red?<|im_end|><|im_start|>assistant<|im_sep|>A ball.<|im_end|>", None),
        ("<|begin_of_text|><|header_start|>user<|header_end|>\n\nWhat is red?<|eot|><|header_start|>assistant"
         "<|header_end|>\n\nA ball.<|eot|>", None),  # Llama 4
        ("<|start_of_role|>user<|end_of_role|>What is red?<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
         "A ball.<|end_of_text|>\n", None),  # Granite
        ("[|user|]What is red?\n[|assistant|]A ball.[|endofturn|]\n", None),  # EXAONE
        ("<s>GPT4 Correct User: What is red?<|end_of_turn|>GPT4 Correct Assistant: A ball.<|end_of_turn|>", None),
        ("<|prompter|>What is red?<|endoftext|><|assistant|>A ball.<|endoftext|>", None),  # OpenAssistant
        ("<s>[INST] What is red? [/INST] A ball.</s>", None),  # Mistral, Llama 2
        ("<s>[SYSTEM_PROMPT]Be kind.[/SYSTEM_PROMPT][INST]What is red?[/INST]A ball.</s>", "system"),
        ("A chat between a user and an assistant. USER: What is red? ASSISTANT: A ball.</s>",
         "A chat between a user and an assistant."),  # Vicuna
        ("### Instruction:\nWhat is red?\n\n### Response:\nA ball.<|endoftext|>", None),  # Alpaca, and an end
        ("### User:\nWhat is red?\n\n### Assistant:\nA ball.</s>", None),  # SOLAR
        ("Be kind.\n\n### Instruction\nWhat is red?\n\n### Response\nA ball.", "system"),
        ("<|start|>system<|message|>You are ChatGPT.\n# Valid channels: final<|end|><|start|>developer<|message|>"
         "# Instructions\n\nBe kind.<|end|><|start|>user<|message|>What is red?<|end|><|start|>assistant<|channel|>"
         "final<|message|>A ball.<|return|>", "system"),  # gpt-oss
    ],
)  # fmt: skip
def test_the_marks_of_other_families_are_known(text: str, talk: str | None) -> None:
    found = converted(text)
    first = [] if talk is None else [{"role": "system", "content": "Be kind." if talk == "system" else talk}]
    turns = [{"role": "user", "content": "What is red?"}, {"role": "assistant", "content": "A ball."}]
    assert (found.format, found.usable[0].messages) == ("guanaco", [*first, *turns])


def test_a_tool_answers_and_reasoning_stands_apart() -> None:
    text = (
        "<|start|>user<|message|>Red?<|end|><|start|>assistant<|channel|>analysis<|message|>Hm.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>A ball.<|return|>"
    )
    assert converted(text).usable[0].messages == [
        {"role": "user", "content": "Red?"},
        {"role": "assistant", "content": "A ball.", "reasoning_content": "Hm."},
    ]
    glaive = (
        "USER: Red?\n\n\nASSISTANT: <functioncall> {} <|endoftext|>\n\n\nFUNCTION RESPONSE: {}\n\n\nASSISTANT: Yes."
    )
    assert [message["role"] for message in converted(glaive).usable[0].messages] == [
        *("user", "assistant", "tool", "assistant"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user\nHi<|im_end|> and more <|im_start|>assistant\nHello!<|im_end|>",
        "before <start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>",
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
        "<|start_header_id|>wizard<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>Yes",
        "The tokens <|user|> and <|assistant|> are marks.",
        "<|assistant|>\nHello!</s>",
        "In Vicuna one writes USER: and ASSISTANT: into a line.",
    ],
)
def test_a_text_that_is_not_all_turns_is_left_whole(text: str) -> None:
    found = converted(text)
    assert (found.format, found.usable[0].text) == ("text", text)


@pytest.mark.parametrize(
    "mark", ["<|start_header_id|>user<|end_header_id|>", "<|user|>", "<|im_start|>user\n", "<｜User｜>"]
)
def test_marks_without_end_are_read_in_no_time(mark: str) -> None:
    start = time.process_time()
    rows: list[Any] = [{"text": mark * 20_000}, {"text": f"a{mark}" * 20_000}]
    settings = DataSettings()
    assert convert(rows, recognise_layout(rows, settings, "f"), settings, "f", SpilledConversations()).usable
    assert time.process_time() - start < 2
