"""Advice: said of what is allowed and likely to disappoint, and of nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.train import check_html
from core.basemodel.find import find_model
from core.recipe import load_recipe, make_recipe
from core.train.advice import advice


@pytest.mark.parametrize(
    ("recipe", "parameters", "said"),
    [("quickstart", 7_000_000_000, 1), ("quickstart", 5_000_000, 0), ("modern", 7_000_000_000, 0)],
)
def test_the_starters_rate_is_no_rate_for_a_large_model(recipe: str, parameters: int, said: int) -> None:
    """After "Try it" the form holds the sample's settings, and another model is one click away."""
    found = replace(find_model("starter"), folder=None, parameters_online=parameters)
    sentences = advice(load_recipe(recipe), found, "cuda")
    assert len(sentences) == said
    for sentence in sentences:
        html = check_html.check({"ok": True, "errors": [], "advice": sentences})
        assert "7.0B" in sentence and "Learning rate (train.learning_rate): 0.002" in html and "Ready" in html


@pytest.mark.parametrize(
    ("flags", "device", "bits", "said"),
    [
        ({"avx2", "avx512f"}, "cpu", 8, True),
        ({"avx2", "avx512f", "avx512_vnni"}, "cpu", 8, False),
        ({"avx2", "avx_vnni"}, "cpu", 8, False),
        (set(), "cpu", 8, False),  # no x86, or a system that does not tell
        ({"avx2"}, "cpu", 4, False),
        ({"avx2"}, "cuda", 8, False),
    ],
)
def test_eight_bits_on_a_cpu_that_saturates_are_told_of(
    flags: set[str], device: str, bits: int, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.train.advice.cpu_flags", lambda: frozenset(flags))
    sentences = advice(make_recipe({"quantization.bits": bits}), find_model("starter"), device)
    assert [each.startswith("quantization.bits") and "VNNI" in each for each in sentences] == [True] * said
