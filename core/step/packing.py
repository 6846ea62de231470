"""Tests on the loaded model that packed conversations do not see each other; if they do, they are padded instead."""

from typing import Any

import torch

from core.data.batches import packed_batch
from core.data.rendering.render import Rendered
from core.recipe import TrainSettings

# Above the rounding of bf16 (8 bits of mantissa) over many layers, far below what one foreign token changes.
TOLERANCE = 0.05


def packing_is_wanted(settings: TrainSettings) -> bool:
    """Whether conversations may share rows, provided that the model keeps them apart.

    transformers tells FlashAttention where a conversation ends only in a batch of one row, so with it they are padded;
    FlashAttention skips the padding.
    """
    return settings.packing == "auto" and settings.attention != "flash_attention_2"


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
    with torch.no_grad():
        packed = _logits(model, input_ids=batch["input_ids"], position_ids=batch["position_ids"])
        # The longer one comes first in the pack.
        alone = [_logits(model, input_ids=torch.tensor([ids])) for ids in sorted(rows, key=len, reverse=True)]
    model.train(was_training)
    expected = torch.cat([logits[0] for logits in alone])
    difference = (packed[0, : sum(lengths)] - expected).abs().max()
    return bool(difference <= TOLERANCE * expected.abs().max())


def _logits(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    moved = {key: value.to(model.device) for key, value in inputs.items()}
    return model(**moved, use_cache=False).logits.float()
