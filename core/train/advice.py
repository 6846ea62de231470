"""What is allowed and yet likely to disappoint: shown before a run and in its events, never refused."""

from __future__ import annotations

from core.basemodel.find import FoundModel
from core.recipe import Recipe
from core.system.hardware import cpu_flags

LARGE = 300_000_000  # parameters
HIGH_RATE = 1e-3


# Linux' names of the instructions that add up 8-bit products in 32 bits.
VNNI = {"avx512_vnni", "avx_vnni"}


def advice(recipe: Recipe, found: FoundModel, device: str) -> list[str]:
    """Sentences for whoever is about to train `recipe` on `found` on a device of that kind; mostly none."""
    rate, sentences = recipe.train.learning_rate, []
    if rate >= HIGH_RATE and found.parameters >= LARGE:
        sentences.append(
            f"train.learning_rate: {rate:g} suits models as small as the starter. One of {found.parameters / 1e9:.1f}B "
            "is likely to forget what it knows: QLoRA's authors took 0.0002 up to 13B, and 0.0001 above."
        )
    if recipe.quantization.bits == 8 and device == "cpu" and _saturates(cpu_flags()):
        sentences.append(
            "quantization.bits: 8 bits are inexact on this CPU. It has no VNNI instructions, and without them sums of "
            "8-bit products are cut off at 16 bits: logits came out ten times further from the original than they "
            "should. Choose 4 or 16."
        )
    return sentences


def _saturates(flags: frozenset[str]) -> bool:
    """Whether an x86 CPU multiplies 8-bit matrices without VNNI. Other CPUs, and systems but Linux, tell no flags."""
    return bool(flags) and not flags & VNNI
