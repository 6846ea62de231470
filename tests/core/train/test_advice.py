"""Advice: said of what is allowed and likely to disappoint, and of nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.train import check_html
from core.basemodel.find import find_model
from core.recipe import load_recipe
from core.train.advice import advice


@pytest.mark.parametrize(
    ("recipe", "parameters", "said"),
    [("quickstart", 7_000_000_000, 1), ("quickstart", 5_000_000, 0), ("modern", 7_000_000_000, 0)],
)
def test_the_starters_rate_is_no_rate_for_a_large_model(recipe: str, parameters: int, said: int) -> None:
    """After "Try it" the form holds the sample's settings, and another model is one click away."""
    found = replace(find_model("starter"), folder=None, parameters_online=parameters)
    sentences = advice(load_recipe(recipe), found)
    assert len(sentences) == said
    for sentence in sentences:
        html = check_html.check({"ok": True, "errors": [], "advice": sentences})
        assert "7.0B" in sentence and "Learning rate (train.learning_rate): 0.002" in html and "Ready" in html
