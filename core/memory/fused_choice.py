"""Whether a run computes base and adapter in one pass (core/step/fused_lora.py), and what a person is told about it."""

from core.memory.device import PlanningDevice
from core.recipe import Recipe

MEASURE = "`python launch.py bench train`"


def fused_choice(recipe: Recipe, target: PlanningDevice) -> tuple[bool, str]:
    """Whether to, and why, as the end of a sentence; '' where there is nothing to choose.

    A CPU always gains. On a GPU it is a matter of its kernels, so only one that was measured leaves the known path.
    """
    wanted = recipe.train.fused_lora
    if recipe.quantization.bits != 4 or recipe.lora.dora or target.kind == "mps":
        return False, "only a base in 4 bits without DoRA, on a CPU or an NVIDIA GPU, can" if wanted == "on" else ""
    if wanted != "auto":
        return wanted == "on", "you set it"
    if target.kind == "cpu":
        return True, ""
    return _by_gain(target) if target.is_this_machine else (False, "")


def _by_gain(target: PlanningDevice) -> tuple[bool, str]:
    gain = target.fused_gain
    if gain is None:
        return False, f"whether it is faster on this GPU has not been measured; {MEASURE} does"
    if not gain.holds_for(target.dtype):
        before = f"torch {gain.torch} and bitsandbytes {gain.bitsandbytes} in {gain.computing}"
        return False, f"it was measured on this GPU with {before}, which no longer holds; {MEASURE} measures it again"
    return gain.is_gain, f"{MEASURE} measured {gain.times:.2f} times the speed of PEFT's own layer on this GPU"
