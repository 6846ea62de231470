"""Keeps the input embeddings in ordinary memory, where they are looked up, to free that much of a GPU's."""

from typing import Any

import torch


def keep_embeddings_in_ram(model: Any) -> int:
    """Move the input embeddings of `model` to ordinary memory: token ids go there, the vectors come back.

    Embeddings that are trained or tied to the head stay. Returns how many bytes that frees on the device.
    """
    embedding = model.get_input_embeddings()
    if not movable_embedding(model):
        return 0
    home = embedding.weight.device
    weight = embedding.weight.detach().to("cpu")
    # No longer a parameter: accelerate would move it back to the device before training, and transformers takes the
    # first parameter's device for the one that the model computes on.
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
