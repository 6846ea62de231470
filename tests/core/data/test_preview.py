"""A row as tokens: joined they are the row again, whatever the tokenizer does with spaces and half characters."""

from __future__ import annotations

import copy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.data.conversation import Conversation
from core.data.preview import show_row, show_tokens
from core.data.rendering.render import Renderer
from core.data.rendering.template import Unrenderable
from core.recipe import DataSettings
from tests.tiny import tiny_tokenizer

TALK = [
    {"role": "user", "content": " a red ball? ünï 🎈"},
    {"role": "assistant", "content": "a blue kite\nüber 🪁🇳🇴"},
]


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return Renderer(tiny_tokenizer(tmp_path_factory.mktemp("examples")), DataSettings())


def _spaced_tokenizer() -> Any:
    """A tokenizer that writes spaces into its words and drops the one at the very beginning, as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "</s>", "▁the", "▁lazy", "▁dog", "▁", "s"]
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>")


def _text(shown: list[dict[str, Any]]) -> str:
    return "".join(each["text"] for each in shown)


def test_the_tokens_of_a_row_are_the_row_and_its_trained_part_the_reply_with_its_end(renderer: Renderer) -> None:
    found = show_row(renderer, Conversation(7, TALK), 512)
    assert _text(found["tokens"]) == renderer.template.lay_outs(Conversation(7, TALK))[-1].text
    assert _text([each for each in found["tokens"] if each["trained"]]) == TALK[1]["content"] + "<|im_end|>"
    assert (found["row"], found["messages"], found["truncated_here"], found["pieces"]) == (7, TALK, False, 1)
    assert "\ufffd" not in _text(found["tokens"])


def test_a_reply_that_counts_in_part_says_by_how_much_at_each_of_its_tokens(renderer: Renderer) -> None:
    found = show_row(renderer, Conversation(7, [*TALK, TALK[0], {**TALK[1], "weight": 0.25}]), 512)
    trained = [each for each in found["tokens"] if each["trained"]]
    whole, part = ([each for each in trained if ("weight" in each) is partly] for partly in (False, True))
    assert _text(whole) == _text(part) == TALK[1]["content"] + "<|im_end|>"
    assert {each["weight"] for each in part} == {0.25}
    assert not any("weight" in each for each in found["tokens"] if not each["trained"])


def test_tokens_that_only_together_make_a_character_are_one_entry(renderer: Renderer) -> None:
    ids = renderer.tokenizer("🎈").input_ids
    assert len(ids) > 1
    assert show_tokens(renderer.tokenizer, ids, [True] * len(ids)) == [{"id": ids, "text": "🎈", "trained": True}]


def test_a_space_that_is_dropped_only_at_the_beginning_is_shown() -> None:
    tokenizer = _spaced_tokenizer()
    ids = tokenizer("the lazy dog").input_ids
    shown = show_tokens(tokenizer, ids, [False] * len(ids))
    assert [each["text"] for each in shown] == ["the", " lazy", " dog"]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40), st.randoms())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_any_text_is_shown_whole(renderer: Renderer, text: str, random: Any) -> None:
    ids = renderer.tokenizer(text).input_ids
    shown = show_tokens(renderer.tokenizer, ids, [False] * len(ids))
    assert _text(shown) == renderer.tokenizer.decode(ids)
    assert [token for each in shown for token in (each["id"] if isinstance(each["id"], list) else [each["id"]])] == ids


def test_a_long_plain_text_is_shown_whole_in_pieces(renderer: Renderer) -> None:
    text = "the quick brown fox " * 40
    found = show_row(renderer, Conversation(1, [], text=text), 32)
    assert found["pieces"] > 1
    assert _text(found["tokens"]).startswith(text)
    assert found["length"] == sum(len(each["id"]) if isinstance(each["id"], list) else 1 for each in found["tokens"])


def test_a_row_that_cannot_be_trained_on_says_why(renderer: Renderer) -> None:
    long = [{"role": "user", "content": "hello " * 100}, {"role": "assistant", "content": "yes"}]
    with pytest.raises(Unrenderable, match="fills the 16 tokens"):
        show_row(renderer, Conversation(1, long), 16)


def test_rows_shown_by_several_threads_do_not_mix(renderer: Renderer) -> None:
    rows = [Conversation(row, [TALK[0], {"role": "assistant", "content": "kite " * row}]) for row in range(1, 60)]
    alone = [show_row(renderer, row, 512) for row in rows]
    others = [Renderer(copy.deepcopy(renderer.tokenizer), DataSettings()) for _ in range(4)]
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads change so often that they would meet within a template
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda own: [show_row(own, row, 512) for row in rows], others))
    finally:
        sys.setswitchinterval(switching)
    assert all(each == alone for each in found)


def test_the_saved_tokenizer_shows_the_same(tmp_path: Path, renderer: Renderer) -> None:
    from transformers import AutoTokenizer

    renderer.tokenizer.save_pretrained(tmp_path)
    again = Renderer(AutoTokenizer.from_pretrained(tmp_path), DataSettings())
    conversation = Conversation(1, TALK)
    assert show_row(again, conversation, 512) == show_row(renderer, conversation, 512)
