"""An adapter's patterns mean what PEFT takes them to mean, or are refused before they can keep anybody waiting."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from core.errors import ModelError
from core.untrusted.patterns import SECONDS, refuse_endless_patterns
from tests.core.untrusted.seen_patterns import HOSTILE, PUBLISHED


def names(layers: int) -> Iterator[str]:
    """The modules of a Llama of so many layers."""
    for layer in range(layers):
        at = f"model.layers.{layer}"
        yield from (at, f"{at}.self_attn", f"{at}.mlp", f"{at}.input_layernorm")
        yield from (f"{at}.self_attn.{each}_proj" for each in "qkvo")
        yield from (f"{at}.mlp.{each}_proj" for each in ("gate", "up", "down"))
    yield from ("model", "model.embed_tokens", "model.norm", "lm_head")


def test_what_other_tools_write_is_let_through_in_no_time() -> None:
    every = list(names(126))  # as many as Llama 3.1 405B has
    for pattern in PUBLISHED:
        assert any(re.fullmatch(pattern, name) for name in every)
        began = time.monotonic()
        refuse_endless_patterns({"target_modules": pattern, "rank_pattern": {pattern: 8}}, "theirs", every)
        assert time.monotonic() - began < SECONDS + 1


@pytest.mark.parametrize("pattern", HOSTILE)
def test_a_pattern_without_end_is_refused_in_good_time(pattern: str) -> None:
    began = time.monotonic()
    with pytest.raises(ModelError, match="theirs names its layers by a pattern that takes too long .*target_modules"):
        refuse_endless_patterns({"target_modules": pattern}, "theirs", names(2))
    assert time.monotonic() - began < SECONDS + 4  # a second of trying, and the start of a process on a busy machine


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"exclude_modules": "(.*)*x"}, "exclude_modules"),
        ({"layers_pattern": "(a+)+b"}, "layers_pattern"),
        ({"layers_pattern": ["layers", "(a+)+b"]}, "layers_pattern"),
        ({"alpha_pattern": {"(a|a)*b": 8}}, "alpha_pattern"),
        ({"rank_pattern": {"q_proj": 4, "(a|a)*b": 8}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head", "(a+)+$"]}, "modules_to_save"),
        ({"target_modules": "(("}, r"by an invalid pattern \(target_modules"),
        ({"target_modules": ".*q_proj", "alpha_pattern": {"q_(": 8}}, r"by an invalid pattern \(alpha_pattern"),
        ({"target_modules": {"q_proj": 1}}, "target_modules"),
        ({"target_parameters": [7]}, "target_parameters"),
        ({"target_modules": ["q_proj"] * 60_000}, "target_modules"),
        ({"rank_pattern": {f"layers.{n}.q_proj": 4 for n in range(3_000)}}, "rank_pattern"),
    ],
)
def test_the_setting_that_holds_it_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        refuse_endless_patterns(settings, "theirs", names(2))


def test_what_peft_does_not_read_as_a_pattern_is_no_pattern_here() -> None:
    """In a list, `target_modules` and `target_parameters` are ends of names."""
    refuse_endless_patterns({"target_modules": ["(a+)+$"], "target_parameters": ["(a+)+$"]}, "theirs", names(2))
