"""The mask is exact: for every template of trl's and every one of ours, what is trained is what the template marks."""

from __future__ import annotations

import re

import pytest

from core.data.conversation import Conversation, Message
from core.data.rendering.render import Rendered, Renderer
from core.data.rendering.template import Unrenderable
from core.recipe import DataSettings
from tests.chat_templates import TEMPLATES
from tests.core.data.rendered_rows import render_one
from tests.core.data.rendering.marked import TALKS, TOOL, expected, special_tokens, stand_in, trained_runs


def _cases() -> list[tuple[str, str]]:
    # DeepSeek's special tokens have a word-start mark in their names; its tokenizer is a byte-level one.
    word_start = [name for name, template in TEMPLATES.items() if "▁" not in template]
    return [*((name, "byte-level") for name in TEMPLATES), *((name, "word-start") for name in word_start)]


@pytest.mark.parametrize(("name", "kind"), _cases())
def test_what_is_trained_is_what_the_template_marks(name: str, kind: str) -> None:
    """Every kind of conversation is either exact or refused; the plain one may never be refused."""
    tokenizer = stand_in(kind, special_tokens(TEMPLATES[name]))
    tokenizer.chat_template = TEMPLATES[name]
    renderer = Renderer(tokenizer, DataSettings())
    exact = 0
    for kind_of_talk, messages in TALKS.items():
        talk = Conversation(1, messages, [TOOL] if kind_of_talk == "tools" else None)
        try:
            render_one(renderer, talk, 100_000)
        except Unrenderable as error:
            assert kind_of_talk != "plain", error
            continue
        layouts, runs = renderer.template.lay_outs(talk), []
        for layout, (_, rendered) in zip(layouts, renderer.render_many([talk], 100_000), strict=True):
            assert isinstance(rendered, Rendered)
            assert tokenizer.decode(rendered.ids, skip_special_tokens=False) == layout.text
            runs += trained_runs(tokenizer, rendered)
        if renderer.template.marked:
            assert (layouts[0].text, runs) == expected(renderer, talk), kind_of_talk
        else:
            _only_replies_and_their_ends(runs, messages)
        exact += 1
    assert exact >= 3


def _only_replies_and_their_ends(runs: list[str], messages: list[Message]) -> None:
    """For a template without marks: each run starts with the reply's own words and goes on to its end of turn.

    Before them stands at most an empty thinking block, or the name of the channel that they are said in.
    """
    replies = [message for message in messages if message["role"] == "assistant"]
    assert len(runs) == len(replies)
    for run, reply in zip(runs, replies, strict=True):
        own = reply["content"].strip()
        assert own.split("</think>")[-1].strip() in run
        if own and "think" not in own and not reply.get("reasoning_content"):
            end = run[run.index(own) + len(own) :]
            opening = r"\s*(<think>\s*</think>|<\|channel\|>final<\|message\|>)?\s*"
            assert re.fullmatch(opening, run[: run.index(own)])
            assert re.fullmatch(r"\s*(<[^<>]+>\s*)*", end)
            assert "<" in end
