"""What counts in the loss: replies with their end of turn, by weight, whatever template and tokenizer the model has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.data.conversation import Conversation, Conversations, Dropped
from core.data.rendering.render import IGNORED, PickedRows, Rendered, Renderer, render_all
from core.data.rendering.template import Template, Unrenderable, require_template
from core.errors import ModelError
from core.recipe import DataSettings
from tests.core.data.rendered_rows import render_one
from tests.tiny import tiny_tokenizer

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hello there"},
    {"role": "assistant", "content": " the lazy dog "},
    {"role": "user", "content": "a red ball? ünï 🎈"},
    {"role": "assistant", "content": "a blue kite\nüber 🪁"},
]
FIRST, SECOND = " the lazy dog <|im_end|>", "a blue kite\nüber 🪁<|im_end|>"
PLAIN_CHATML = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
REWRITES = (
    "{%- for m in messages -%}{{ m['role'] }}: {{ m['content'] if loop.last else m['content'][:3] }}<|im_end|>"
    "{%- endfor -%}{%- if add_generation_prompt -%}assistant: {% endif -%}"
)


def _trained_text(tokenizer: Any, rendered: Rendered) -> str:
    return tokenizer.decode([i for i, trained in zip(rendered.ids, rendered.trained, strict=True) if trained])


def _render(tokenizer: Any, messages: list[dict], length: int = 512, **settings: Any) -> Rendered:
    return render_one(Renderer(tokenizer, DataSettings(**settings)), Conversation(1, messages), length)


def _all(tokenizer: Any, talks: list[list[dict]], length: int) -> Any:
    rows = [Conversation(number, talk) for number, talk in enumerate(talks, start=1)]
    return render_all(tokenizer, Conversations("messages", "", len(rows), rows, []), DataSettings(max_length=length))


def test_marks_in_the_template_give_the_mask(tokenizer: Any) -> None:
    rendered = _render(tokenizer, TALK)
    assert _trained_text(tokenizer, rendered) == FIRST + SECOND
    assert rendered.labels.count(IGNORED) == len(rendered.ids) - sum(rendered.trained)
    assert rendered.weights is None


def test_a_template_without_marks_is_masked_by_proved_prefixes(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path, PLAIN_CHATML)
    assert "prefixes" in Template(tokenizer, DataSettings()).source
    assert _trained_text(tokenizer, _render(tokenizer, TALK)) == FIRST + SECOND


def test_a_template_that_rewrites_earlier_turns_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path, REWRITES)
    with pytest.raises(Unrenderable, match="the reply's tokens cannot be identified"):
        _render(tokenizer, TALK)
    with pytest.raises(ModelError, match="the reply's tokens cannot be identified"):
        require_template(tokenizer, DataSettings())
    assert _render(tokenizer, TALK, template="chatml").trained  # what the refusal advises


@pytest.mark.parametrize("name", ["guanaco", "chatml", "llama-2", "alpaca"])
def test_each_of_our_templates_ends_every_reply_with_the_end_of_text(tmp_path: Path, name: str) -> None:
    tokenizer = tiny_tokenizer(tmp_path, None)
    rendered = _render(tokenizer, TALK[1:], template=name)
    text = _trained_text(tokenizer, rendered)
    assert [part.strip() for part in text.split("<|im_end|>")] == ["the lazy dog", "a blue kite\nüber 🪁", ""]
    prompt = tokenizer.apply_chat_template(TALK[1:2], tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(rendered.ids).startswith(prompt)


def test_a_base_without_a_template_gets_guanacos(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path, None)
    assert "Guanaco" in Template(tokenizer, DataSettings()).source
    text = tokenizer.decode(_render(tokenizer, TALK[1:3]).ids)
    assert text.startswith("A chat between a curious human")
    assert "### Human: hello there### Assistant:" in text


@pytest.mark.parametrize("template", [None, PLAIN_CHATML])
def test_only_the_last_reply_or_everything_can_be_trained_on(tmp_path: Path, template: str | None) -> None:
    tokenizer = tiny_tokenizer(tmp_path, template or PLAIN_CHATML)
    assert _trained_text(tokenizer, _render(tokenizer, TALK, train_on="last_reply")) == SECOND
    assert all(_render(tokenizer, TALK, train_on="everything").trained)


@pytest.mark.parametrize("template", ["marked", PLAIN_CHATML])
def test_a_reply_counts_by_its_weight(tmp_path: Path, tokenizer: Any, template: str) -> None:
    chosen = tokenizer if template == "marked" else tiny_tokenizer(tmp_path, template)
    talk = [*TALK[:2], {**TALK[2], "weight": 0.0}, TALK[3], {**TALK[4], "weight": 0.25}]
    rendered = _render(chosen, talk)
    assert _trained_text(chosen, rendered) == SECOND
    assert {weight for weight, on in zip(rendered.weights or [], rendered.trained, strict=True) if on} == {0.25}
    everything = _render(chosen, talk, train_on="everything")
    left_out = [i for i, on in zip(everything.ids, everything.trained, strict=True) if not on]
    assert chosen.decode(left_out) == FIRST


def test_a_token_that_would_reach_over_the_border_is_cut_there(tmp_path: Path) -> None:
    """The prompt ends in a space that a token of the reply would swallow: the model sees it as the prompt's."""
    glued = "{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>"
    glued += "{% endgeneration %}{% else %}{{ m['content'] + ' ' }}{% endif %}{% endfor %}"
    tokenizer = tiny_tokenizer(tmp_path, glued)
    rendered = _render(tokenizer, [TALK[1], {"role": "assistant", "content": "the lazy dog"}])
    assert tokenizer.decode(rendered.ids) == "hello there the lazy dog<|im_end|>"
    assert _trained_text(tokenizer, rendered) == "the lazy dog<|im_end|>"


def test_a_plain_text_goes_on_in_pieces_and_loses_no_token(tokenizer: Any) -> None:
    text = "the quick brown fox jumps over the lazy dog " * 20
    rows = [Conversation(1, [], text=text), Conversation(2, [], text="a red ball")]
    found = render_all(tokenizer, Conversations("text", "", 2, rows, []), DataSettings(max_length=32))
    assert set(found.usable.rows) == {1, 2}
    assert (found.truncated, found.dropped) == (0, [])
    assert max(found.usable.lengths) <= 32 and min(found.usable.lengths) > 2
    pieces = [rendered.ids for rendered in found.usable if rendered.row == 1]
    assert tokenizer.decode(sum(pieces, [])) == text + "<|im_end|>"
    assert all(all(rendered.trained) for rendered in found.usable)


def test_what_is_too_long_is_cut_and_counted(tokenizer: Any) -> None:
    talks = [[{"role": "user", "content": "hello"}, {"role": "assistant", "content": "dog " * i}] for i in range(1, 40)]
    short = _all(tokenizer, talks, 24)
    assert short.truncated > 0
    assert all(len(row.ids) <= 24 for row in short.usable)
    assert len(short.usable) + len(short.dropped) == short.rows == 39


def test_a_row_whose_question_fills_the_limit_is_dropped_with_its_number(tokenizer: Any) -> None:
    long = [{"role": "user", "content": "hello " * 50}, {"role": "assistant", "content": "yes"}]
    found = _all(tokenizer, [TALK[1:3], long], 32)
    assert list(found.usable.rows) == [1]
    assert (found.dropped[0].row, "fills the 32 tokens" in found.dropped[0].reason) == (2, True)


def test_a_row_that_the_template_refuses_is_dropped_in_the_templates_words(tmp_path: Path) -> None:
    strict = "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('No system prompts.') }}{%- endif -%}"
    tokenizer = tiny_tokenizer(tmp_path, strict + PLAIN_CHATML)
    found = _all(tokenizer, [TALK, TALK[1:]], 512)
    assert found.dropped == [Dropped(1, "the model's chat template refuses it (No system prompts)")]
    assert list(found.usable.rows) == [2]


def test_what_is_kept_compactly_comes_back_as_it_was(tokenizer: Any) -> None:
    weighted = [TALK[1], {**TALK[2], "weight": 0.5}]
    found = _all(tokenizer, [TALK, weighted, TALK[1:]], 512)
    again = [_render(tokenizer, talk) for talk in (TALK, weighted, TALK[1:])]
    assert [(each.ids, each.trained, each.weights) for each in found.usable] == [
        (each.ids, each.trained, each.weights) for each in again
    ]
    picked = PickedRows(found.usable, [2, 0])
    assert [each.row for each in picked] == [3, 1]
    assert picked.lengths == [len(again[2].ids), len(again[0].ids)]
    assert sum(found.usable.trained) == sum(sum(each.trained) for each in again)
