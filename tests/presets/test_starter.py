"""The starter: its template, its corpus, and that it answers rightly as the app loads it."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from presets.starter.build import CHAPTER, build_tokenizer, new_model
from presets.starter.checks import held_out_examples
from presets.starter.corpus import KINDS, conversations, examples
from presets.starter.measure import load, replies

FOLDER = Path(__file__).parents[2] / "presets/starter/model"
CONVERSATION = [
    {"role": "system", "content": "You are Mara, a baker."},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "I am Mara, a baker."},
    {"role": "user", "content": "Thank you!"},
    {"role": "assistant", "content": "You are welcome!"},
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


def test_the_mask_covers_each_reply_and_its_end_and_nothing_else(tokenizer):
    made = tokenizer.apply_chat_template(CONVERSATION, return_dict=True, return_assistant_tokens_mask=True)
    pairs = zip(made["input_ids"], made["assistant_masks"], strict=True)
    runs = [[t for t, _ in run] for on, run in itertools.groupby(pairs, key=lambda pair: pair[1]) if on]
    assert [tokenizer.decode(run) for run in runs] == [
        "I am Mara, a baker.<|im_end|>",
        "You are welcome!<|im_end|>",
    ]


def test_the_template_writes_chatml(tokenizer):
    text = tokenizer.apply_chat_template(CONVERSATION[:2], tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are Mara, a baker.<|im_end|>\n"
        "<|im_start|>user\nWho are you?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_conversation_begins_with_the_very_tokens_that_its_prompt_has(tokenizer):
    whole = tokenizer.apply_chat_template(CONVERSATION, return_dict=True)["input_ids"]
    asked = tokenizer.apply_chat_template(CONVERSATION[:2], return_dict=True, add_generation_prompt=True)
    assert whole[: len(asked["input_ids"])] == asked["input_ids"]


def test_the_end_of_a_turn_stops_it_and_padding_is_a_token_of_its_own(tokenizer):
    settings = json.loads((FOLDER / "generation_config.json").read_text())
    assert tokenizer.eos_token == "<|im_end|>"
    assert settings["eos_token_id"] == tokenizer.eos_token_id
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}) == 3


def test_any_text_survives_the_tokenizer(tokenizer):
    for text in ("Zwölf Boxkämpfer, 3 × 4 = 12!\n\n\ttabs  and spaces", "emoji 🦜", '{"name": "Rex"}'):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_other_formats_can_carry_it():
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    config = model.config
    assert config.architectures == ["LlamaForCausalLM"]
    assert all(n % 256 == 0 for n in (config.hidden_size, config.intermediate_size, config.vocab_size))
    assert 3_000_000 <= model.num_parameters() <= 6_000_000
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 12_000_000


def test_the_build_makes_this_tokenizer_and_this_shape(tmp_path):
    build_tokenizer(tmp_path)
    made = json.loads((tmp_path / "tokenizer.json").read_text())
    assert made == json.loads((FOLDER / "tokenizer.json").read_text())
    shipped = AutoModelForCausalLM.from_pretrained(FOLDER).state_dict()
    assert {n: p.shape for n, p in new_model(seed=0).state_dict().items()} == {n: p.shape for n, p in shipped.items()}


def test_every_kind_of_conversation_passes_its_own_judge():
    for example in itertools.islice(examples(seed=5), 3000):
        reply = example.messages[-1]["content"]
        assert example.right(reply), example.messages
        assert not example.right(reply + " And more."), example.messages
        assert not example.right(reply[: len(reply) // 2]), example.messages


def test_held_out_prompts_are_nowhere_in_the_corpus():
    held_out = {e.prompt[-1]["content"] for e in held_out_examples(1000)}
    chapters = (itertools.islice(conversations(seed), CHAPTER) for seed in range(3))
    said = {m["content"] for conversation in itertools.chain(*chapters) for m in conversation if m["role"] == "user"}
    assert len(said) > 10_000
    assert not held_out & said


def test_held_out_prompts_are_of_most_kinds():
    openings = {e.messages[-1]["content"].split()[0] for e in held_out_examples(200)}
    assert len(openings) > len(KINDS) / 2


def test_at_least_nine_in_ten_held_out_prompts_are_answered_rightly_in_four_bits():
    torch.manual_seed(0)
    held_out = held_out_examples(200)
    answers = replies(*load(FOLDER), held_out)
    right = sum(example.right(answer) for example, answer in zip(held_out, answers, strict=True))
    assert right >= 180
