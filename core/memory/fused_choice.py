"""Whether a run computes base and adapter in one pass (core/step/fused_lora.py), and what a person is told about it."""

from core.memory.device import PlanningDevice
from core.recipe import Recipe

NOT_POSSIBLE = "only a base in 4 bits without DoRA, on a CPU or an NVIDIA GPU, can be computed in one pass"
MEASURE = "`python launch.py bench train`"


def fused_choice(recipe: Recipe, target: PlanningDevice) -> tuple[bool, str]:
    """Whether to, and why, as the end of a sentence; '' where there is nothing to choose.

    A CPU gains: 1.06 to 1.19 times PEFT's speed in bf16 with AMX, by bench/_fused.py on one thread with the layers of
    SmolLM2-135M and Llama-3.2-1B. On a GPU it is a matter of its kernels: only one that was measured leaves the known
    path.
    """
    wanted = recipe.train.fused_lora
    if recipe.quantization.bits != 4 or recipe.lora.dora or target.kind not in ("cpu", "cuda"):
        return False, NOT_POSSIBLE if wanted == "on" else ""
    if wanted != "auto":
        return wanted == "on", "you set it"
    if target.kind == "cpu":
        return True, ""
    return _by_gain(target) if target.is_this_machine else (False, "")


def _by_gain(target: PlanningDevice) -> tuple[bool, str]:
    gain = target.fused_gain
    if gain is None:
        return False, f"whether it is faster on this GPU has not been measured; {MEASURE} measures it"
    if gain.computing != target.dtype:
        return False, f"it was measured on this GPU in {gain.computing}, and this run computes in {target.dtype}"
    if not gain.is_current:
        before = f"torch {gain.torch} and bitsandbytes {gain.bitsandbytes}"
        return False, f"it was measured on this GPU with {before}, which no longer holds; {MEASURE} measures it again"
    return gain.is_gain, f"{MEASURE} measured {gain.times:.2f} times the speed of PEFT's own layer on this GPU"
