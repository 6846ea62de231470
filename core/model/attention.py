"""Which devices support which attention. Imports no torch, so that a run can be refused before it starts."""

from core.errors import RecipeError

FLASH = "flash_attention_2"


def repeat_keys() -> None:
    """Have transformers repeat the key heads that query heads share, for cards where torch has no FlashAttention.

    Those of a compute capability below 8.0, and all on Windows. torch's memory-efficient kernel needs as many key heads
    as query heads (2.13, sdp_utils.cpp, `can_use_mem_efficient_attention`): without this, torch would keep all scores,
    in fp32.
    """
    from transformers.integrations import sdpa_attention

    sdpa_attention.use_gqa_in_sdpa = lambda *_: False


def refuse_attention(wanted: str, device_kind: str) -> None:
    """Raises RecipeError where a device of that kind has no such attention."""
    if wanted == FLASH and device_kind != "cuda":
        raise RecipeError(f"train.attention: {FLASH} needs an NVIDIA GPU. Here, choose auto.")
