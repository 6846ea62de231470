"""What is allowed and yet likely to disappoint: shown before a run and in its events, never refused."""

from core.basemodel.find import FoundModel
from core.recipe import Recipe
from core.system.hardware import NAME_ONE, cpu_flags, hidden_cards

LARGE = 300_000_000  # parameters
HIGH_RATE = 1e-3
# Linux' names of the instructions that add up 8-bit products in 32 bits.
VNNI = {"avx512_vnni", "avx_vnni"}


def advice(recipe: Recipe, found: FoundModel, device: str) -> list[str]:
    """Sentences for whoever is about to train `recipe` on `found` on a device of that kind; mostly none."""
    rate, hidden = recipe.train.learning_rate, hidden_cards()
    sentences = [] if hidden is None else [f"{hidden} {NAME_ONE}"]
    if rate >= HIGH_RATE and found.parameters >= LARGE:
        sentences.append(
            f"train.learning_rate: {rate:g} suits models as small as the starter. A model of "
            f"{found.parameters / 1e9:.1f}B parameters is likely to forget what it knows: QLoRA used 0.0002 up to "
            f"13B, and 0.0001 above."
        )
    flags = cpu_flags()  # none are known of other CPUs than x86, and of systems but Linux
    if recipe.quantization.bits == 8 and device == "cpu" and flags and not flags & VNNI:
        sentences.append(
            "quantization.bits: 8 bits are inexact on this CPU. Without VNNI instructions, sums of 8-bit products "
            "saturate at 16 bits, and logits are ten times less accurate than they should be. Choose 4 or 16."
        )
    return sentences
