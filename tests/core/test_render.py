"""The mask covers the replies with their end of turn and nothing else, whatever template the model has."""

from __future__ import annotations

import pytest

from core.data.examples import show_row, show_tokens
from core.data.formats import Conversation, Conversations, recognise
from core.data.render import IGNORED, prepare_tokenizer, render, render_all
from core.errors import ModelError
from tests.tiny import chat_rows, tiny_tokenizer

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hello there"},
    {"role": "assistant", "content": " the lazy dog "},
    {"role": "user", "content": "a red ball? ünï 🎈"},
    {"role": "assistant", "content": "a blue kite\nüber 🪁"},
]
PLAIN_CHATML = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
REWRITES = (
    "{%- for m in messages -%}{{ m['role'] }}: {{ m['content'] if loop.last else m['content'][:3] }}<|im_end|>"
    "{%- endfor -%}{%- if add_generation_prompt -%}assistant: {% endif -%}"
)


def _trained_text(tokenizer, rendered) -> str:
    return tokenizer.decode([i for i, trained in zip(rendered.ids, rendered.trained, strict=True) if trained])


def test_marks_in_the_template_give_the_mask(tokenizer) -> None:
    rendered = render(tokenizer, TALK, 512)
    assert _trained_text(tokenizer, rendered) == " the lazy dog <|im_end|>a blue kite\nüber 🪁<|im_end|>"
    assert rendered.labels.count(IGNORED) == len(rendered.ids) - sum(rendered.trained)


def test_a_template_without_marks_is_masked_by_proved_prefixes(tmp_path) -> None:
    tokenizer = tiny_tokenizer(tmp_path, PLAIN_CHATML)
    assert "prefixes" in prepare_tokenizer(tokenizer)
    rendered = render(tokenizer, TALK, 512)
    assert _trained_text(tokenizer, rendered) == " the lazy dog <|im_end|>a blue kite\nüber 🪁<|im_end|>"


def test_a_template_that_rewrites_earlier_turns_is_refused(tmp_path) -> None:
    tokenizer = tiny_tokenizer(tmp_path, REWRITES)
    prepare_tokenizer(tokenizer)
    with pytest.raises(ModelError, match="not sure which tokens are the reply"):
        render(tokenizer, TALK, 512)


def test_a_base_without_a_template_gets_guanacos(tmp_path) -> None:
    tokenizer = tiny_tokenizer(tmp_path, None)
    assert "Guanaco" in prepare_tokenizer(tokenizer)
    rendered = render(tokenizer, TALK[1:3], 512)
    text = tokenizer.decode(rendered.ids)
    assert text.startswith("A chat between a curious human")
    assert "### Human: hello there### Assistant:" in text
    assert _trained_text(tokenizer, rendered) == "  the lazy dog <|im_end|>"
    prompt = tokenizer.apply_chat_template(TALK[1:2], tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("### Human: hello there### Assistant:")


def test_what_is_too_long_is_cut_and_counted(tokenizer) -> None:
    conversations = recognise(chat_rows(10), "auto", "rows.jsonl")
    short = render_all(tokenizer, conversations, 24)
    assert short.truncated > 0
    assert all(len(row.ids) <= 24 for row in short.usable)
    assert len(short.usable) + len(short.dropped) == short.rows == 10


def test_a_row_whose_question_fills_the_limit_is_dropped_with_its_number(tokenizer) -> None:
    long = [{"role": "user", "content": "hello " * 50}, {"role": "assistant", "content": "yes"}]
    found = render_all(tokenizer, Conversations("messages", "", 1, [Conversation(1, long)], []), 32)
    assert found.usable == []
    assert (found.dropped[0].row, "fills the 32 tokens" in found.dropped[0].reason) == (1, True)


def test_the_preview_shows_every_token_that_is_trained(tokenizer) -> None:
    rendered = render(tokenizer, TALK, 512)
    shown = show_tokens(tokenizer, rendered.ids, rendered.trained)
    assert "".join(token["text"] for token in shown) == tokenizer.decode(rendered.ids)
    assert "".join(token["text"] for token in shown if token["trained"]) == _trained_text(tokenizer, rendered)


def test_the_preview_takes_the_next_usable_row(tokenizer) -> None:
    rows = chat_rows(3)
    rows[1] = {"messages": []}
    shown = show_row(tokenizer, recognise(rows, "auto", "rows.jsonl"), 2, 512)
    assert shown["row"] == 3
    assert shown["messages"] == rows[2]["messages"]
