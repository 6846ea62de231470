"""Tests on the loaded model that packed conversations do not see each other; if they do, they are padded instead."""

from typing import Any, NamedTuple

import torch

from core.data.batches import packed_batch
from core.data.rendering.render import Rendered
from core.model.load import is_out_of_memory
from core.model.varlen import layers_watched, use_varlen, varlen_suits
from core.recipe import TrainSettings
from core.text.library_errors import telling_line

# Above the rounding of bf16 (8 bits of mantissa) over many layers, far below what one foreign token changes.
TOLERANCE = 0.05
WITHOUT_MASK = (
    "Packed conversations are computed by torch's varlen_attn, which needs no mask. train.attention: sdpa uses one."
)
_WITH_MASK = "so packed conversations need a mask, which takes memory and time where rows are long."


class Packing(NamedTuple):
    """Whether conversations share rows; whether `varlen_attn` computes them; what a person should know of that."""

    packed: bool
    varlen: bool = False
    note: str = ""


def packing_is_wanted(settings: TrainSettings) -> bool:
    """Whether conversations may share rows, provided that the model keeps them apart.

    transformers tells FlashAttention where a conversation ends only in a batch of one row, so with it they are padded;
    FlashAttention skips the padding.
    """
    return settings.packing == "auto" and settings.attention != "flash_attention_2"


def varlen_is_wanted(settings: TrainSettings, device_kind: str, dtype: torch.dtype) -> bool:
    """Whether packed rows are to be computed by torch's `varlen_attn`: where nothing else is set, and it is there."""
    return packing_is_wanted(settings) and settings.attention == "auto" and varlen_suits(device_kind, dtype)


def settle_packing(model: Any, settings: TrainSettings, device_kind: str, dtype: torch.dtype) -> Packing:
    """Try on `model` (PEFT's), which computes in `dtype`, how its conversations can share rows, and set it so."""
    if not packing_is_wanted(settings):
        return Packing(False)
    note, base = "", model.get_base_model()
    if varlen_is_wanted(settings, device_kind, dtype) and use_varlen(base):
        fault = _fault(model)
        if not fault:
            return Packing(True, True, WITHOUT_MASK)
        use_varlen(base, False)
        note = f"torch's varlen_attn does not work with this model here ({fault}), {_WITH_MASK}"
    elif settings.attention == "auto" and device_kind == "cuda":
        there = varlen_suits(device_kind, dtype)
        lacks = "This model needs its own attention" if there else f"torch has no varlen_attn for {str(dtype)[6:]} here"
        note = f"{lacks}, {_WITH_MASK}"
    return Packing(True, False, note) if packing_is_exact(model) else Packing(False)


def _fault(model: Any) -> str:
    """What is wrong with packed rows of `model` as it is set; empty where nothing is. Raises where memory runs out."""
    try:
        with layers_watched() as layers:
            if not packing_is_exact(model):
                return "conversations see each other"
        return "" if any(layers) else "none of its layers can do without a mask"
    except Exception as error:  # whatever a kernel says to a card or sizes that it does not know
        if is_out_of_memory(error):
            raise
        return telling_line(error)


def packing_is_exact(model: Any) -> bool:
    """Whether two conversations in one pack get the logits that each gets alone.

    They do not where a model takes positions from the attention mask, or keeps a state along the sequence.
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    lengths = (7, 9)
    rows = [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in lengths]
    batch = packed_batch([Rendered(1, ids, [True] * len(ids), len(ids)) for ids in rows])
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            packed = _logits(model, input_ids=batch["input_ids"], position_ids=batch["position_ids"])
            # The longer one comes first in the pack.
            alone = [_logits(model, input_ids=torch.tensor([ids])) for ids in sorted(rows, key=len, reverse=True)]
    finally:
        model.train(was_training)
    expected = torch.cat([logits[0] for logits in alone])
    difference = (packed[0, : sum(lengths)] - expected).abs().max()
    return bool(difference <= TOLERANCE * expected.abs().max())


def _logits(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    moved = {key: value.to(model.device) for key, value in inputs.items()}
    return model(**moved, use_cache=False).logits.float()
