"""The optimizers: what a recipe calls them, and what transformers does on each device. Imports no torch."""

from __future__ import annotations

from core.errors import RecipeError

# What stands in for the paged optimizers where there is no unified memory: the same AdamW in one fused kernel, or the
# same optimizer in ordinary memory.
UNPAGED = {
    "paged_adamw_32bit": "adamw_torch_fused",
    "paged_adamw_8bit": "adamw_8bit",
    "paged_lion_32bit": "lion_32bit",
    "paged_lion_8bit": "lion_8bit",
}


def optimizer_name(wanted: str, device: str) -> str:
    """transformers' name for the optimizer `wanted` on `device`. Raises RecipeError where there is none like it."""
    if wanted == "adamw":
        return "adamw_torch_fused"
    if wanted == "auto":  # what it means until a plan has chosen: the adapters' dtype is the same for its choices
        wanted = "paged_adamw_32bit"
    if device == "cuda":
        return wanted
    if device == "mps" and "lion" in wanted:
        raise RecipeError("train.optimizer: there is no Lion for Apple's GPU. Choose adamw, or auto.")
    # bitsandbytes has no 8-bit optimizer for Apple's GPU.
    return "adamw_torch_fused" if device == "mps" else UNPAGED[wanted]
