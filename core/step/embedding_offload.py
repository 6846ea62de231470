"""What a GPU's memory is too dear for: the input embeddings, looked up in ordinary memory."""

from __future__ import annotations

from typing import Any

import torch


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


def movable_embedding(model: Any) -> int:
    """Bytes of the input embeddings where they are frozen, not tied to the head, and nothing but looked up; else 0."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    inside = embedding.weight
    if type(embedding).forward is not torch.nn.Embedding.forward:  # such as Gemma's, which scales what it has looked up
        return 0
    if inside.requires_grad or (head is not None and head.weight is inside):
        return 0
    return int(inside.nbytes)
