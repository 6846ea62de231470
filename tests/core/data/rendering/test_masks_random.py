"""Whatever is said in a conversation, the mask is what the template marks; no row is lost and no other error raised."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.conversation import Conversation, Conversations
from core.data.rendering.render import Renderer, render_all
from core.recipe import DataSettings
from tests.chat_templates import TEMPLATES
from tests.core.data.rendering.marked import expected, special_tokens, stand_in, trained_runs

# Any text but half characters, which the formats drop, and the private use area, by which the reference marks.
TEXT = st.text(st.characters(exclude_categories=("Cs", "Co")), max_size=60)
SAID = st.one_of(
    TEXT, st.sampled_from(["", " ", "\n\n", "### Human:", "[/INST]", "</s", "<|im_end", "🎈" * 9, "\u200d\ufeff"])
)
TALK = st.tuples(
    st.one_of(st.none(), SAID),
    st.lists(st.tuples(SAID, SAID.filter(str.strip), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=4),
)


def _messages(talk: Any) -> list[dict[str, Any]]:
    system, turns = talk
    messages = [{"role": "system", "content": system}] if system is not None else []
    for question, reply, weight in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": reply, "weight": weight}]
    return messages


@pytest.mark.parametrize("kind", ["byte-level", "word-start"])
@pytest.mark.parametrize("name", ["guanaco", "chatml", "llama-2", "alpaca", "qwen2_5", "llama3", "phi3", "llama3_1"])
@settings(max_examples=40, deadline=None)
@given(talks=st.lists(TALK, min_size=1, max_size=3))
def test_random_conversations_break_neither_the_sum_nor_the_mask(name: str, kind: str, talks: list[Any]) -> None:
    tokenizer = stand_in(kind, special_tokens(TEMPLATES[name]))
    tokenizer.chat_template = TEMPLATES[name]
    rows = [Conversation(number, _messages(talk)) for number, talk in enumerate(talks, start=1)]
    chosen = DataSettings(max_length=100_000)
    found = render_all(tokenizer, Conversations("messages", "", len(rows), rows, []), chosen)
    assert sorted([*found.usable.rows, *(drop.row for drop in found.dropped)]) == list(range(1, len(rows) + 1))
    renderer = Renderer(tokenizer, chosen)
    for rendered in found.usable:
        talk = rows[rendered.row - 1]
        layout = renderer.template.lay_outs(talk)[-1]
        assert tokenizer.decode(rendered.ids, skip_special_tokens=False) == layout.text
        assert _joined(trained_runs(tokenizer, rendered)) == _joined(
            [layout.text[s.start : s.end] for s in layout.spans]
        )
        if renderer.template.marked and all(message.get("weight", 1.0) > 0 for message in talk.messages):
            assert expected(renderer, talk) == (layout.text, trained_runs(tokenizer, rendered))


def _joined(runs: list[str]) -> str:
    return "".join(runs)
