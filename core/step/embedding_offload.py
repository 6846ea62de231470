"""What a GPU's memory is too dear for: the input embeddings, looked up in ordinary memory."""

from __future__ import annotations

from typing import Any

import torch

from core.memory.trace import movable_embedding


def keep_embeddings_in_ram(model: Any) -> int:
    """Move the input embeddings of `model` to ordinary memory: token ids go there, what is looked up comes back.

    Embeddings that are trained, or are the head as well, stay. Returns the bytes that the device was freed of.
    """
    embedding = model.get_input_embeddings()
    if not movable_embedding(model):
        return 0
    home = embedding.weight.device
    weight = embedding.weight.detach().to("cpu")
    # No parameter any more: accelerate moves those to the device once more, all of them, before it trains, and
    # transformers takes the first for the device that a model computes on.
    del embedding.weight
    embedding.weight = weight

    def to_ram(module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(each.to("cpu") for each in inputs)

    def to_device(module: Any, inputs: Any, looked_up: torch.Tensor) -> torch.Tensor:
        return looked_up.to(home)

    embedding.register_forward_pre_hook(to_ram)
    embedding.register_forward_hook(to_device)
    return int(weight.nbytes)
