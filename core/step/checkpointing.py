"""Gradient checkpointing on all layers or some: what a layer does not keep is computed again in the backward pass."""

from __future__ import annotations

from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer

# By the name that plans use: every how many layers one is checkpointed.
EVERY = {"off": 0, "half": 2, "full": 1}


def checkpoint(model: Any, mode: str) -> None:
    """Turn checkpointing on in `model` (PEFT's) as `mode` says: 'off', 'half' (every second layer), 'full'."""
    if mode == "off":
        return
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    thin_out(model, mode)


def thin_out(model: Any, mode: str) -> None:
    """Where all layers are checkpointed, leave it to those that `mode` names."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for index, layer in enumerate(layers):
        layer.gradient_checkpointing = bool(EVERY[mode]) and index % EVERY[mode] == 0
