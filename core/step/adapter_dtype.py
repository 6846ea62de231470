"""Adapters that are kept in fp32 over a model that computes in 16 bits: their products are made in those 16 bits.

PEFT would make a copy in fp32 of what comes into every layer, and keep it for the backward pass. Under autocast there
is none, but then other layers answer in another dtype than the model's own, and meta tensors know no autocast, so that
a trace would count a step that never runs. Here the weights, which are small, are what is cast, in the step and in its
trace alike; their gradients are in fp32, as they are. Where all is of one dtype nothing changes.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer


def compute_in_input_dtype(model: torch.nn.Module) -> None:
    """Let every linear adapter of `model` compute in the dtype of what it is given.

    DoRA's go on in fp32: it measures its magnitudes against the norm of all weights, which must be exact.
    """
    for layer in model.modules():
        if not isinstance(layer, LoraLayer) or layer.lora_variant:
            continue
        pairs = [*layer.lora_A.values(), *layer.lora_B.values()]
        if pairs and all(type(each) is torch.nn.Linear for each in pairs):
            layer.cast_input_dtype_enabled = False
            for each in pairs:
                each.forward = MethodType(_forward, each)


def _forward(linear: Any, x: torch.Tensor) -> torch.Tensor:
    bias = None if linear.bias is None else linear.bias.to(x.dtype)
    return torch.nn.functional.linear(x, linear.weight.to(x.dtype), bias)
