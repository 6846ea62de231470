"""What is allowed and yet likely to disappoint: said before a run and in its events, never in its way."""

from __future__ import annotations

from core.basemodel.find import FoundModel
from core.recipe import Recipe

LARGE = 300_000_000  # parameters
HIGH_RATE = 1e-3


def advice(recipe: Recipe, found: FoundModel) -> list[str]:
    """Sentences for the person who is about to train `recipe` on the model that was `found`; mostly none."""
    rate = recipe.train.learning_rate
    if rate < HIGH_RATE or found.parameters < LARGE:
        return []
    return [
        f"train.learning_rate: {rate:g} suits models as small as the starter. One of {found.parameters / 1e9:.1f}B is "
        "likely to forget what it knows: QLoRA's authors took 0.0002 up to 13B, and 0.0001 above."
    ]
