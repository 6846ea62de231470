"""Gradient checkpointing, on every layer or every second one: what is not kept is recomputed in the backward pass."""

from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer

# By the mode's name in plans: one layer in so many is checkpointed.
EVERY = {"off": 0, "half": 2, "full": 1}


def checkpoint(model: Any, mode: str) -> None:
    """Turn checkpointing on in `model` (PEFT's): `mode` is 'off', 'half' (every second layer) or 'full'."""
    if mode == "off":
        return
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    thin_out(model, mode)


def thin_out(model: Any, mode: str) -> None:
    """Turn it off again in the layers that `mode` leaves out, where all are checkpointed."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for index, layer in enumerate(layers):
        layer.gradient_checkpointing = bool(EVERY[mode]) and index % EVERY[mode] == 0
