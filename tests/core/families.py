"""The families of models that are tried, and what is so with each."""

from __future__ import annotations

from typing import NamedTuple


class Facts(NamedTuple):
    """What is so with two layers of an architecture: layers in 4 bits, modules adapted, conversations packed."""

    in_four_bits: int
    adapted: int
    packed: bool


# Two times q, k, v, o, gate, up, down. phi3 joins q, k, v and gate, up; gpt_neox joins q, k, v and has no gate, nor has
# opt. transformers 5.23 does not quantise Falcon's layers, which are of a class of its own, which
# peft adapts all the same. A mixture's experts lie fused in two tensors a layer, which are ours to quantise and to
# adapt; its routers stay as they are.
# opt takes positions from the attention mask, and falcon masks without regard to them: these two are padded.
FAMILIES = {
    "llama": Facts(14, 14, packed=True),
    "mistral": Facts(14, 14, packed=True),
    "qwen2": Facts(14, 14, packed=True),
    "qwen3": Facts(14, 14, packed=True),
    "gemma2": Facts(14, 14, packed=True),
    "gemma3_text": Facts(14, 14, packed=True),
    "phi3": Facts(8, 8, packed=True),
    "gpt_neox": Facts(8, 8, packed=True),
    "opt": Facts(12, 12, packed=False),
    "falcon": Facts(0, 8, packed=False),
    "qwen3_moe": Facts(12, 12, packed=True),
}
