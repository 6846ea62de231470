"""The dtype that adapters are trained in, and how those in fp32 go with a model that computes in 16 bits.

PEFT would make a copy in fp32 of what comes into every layer, and keep it for the backward pass. Under autocast there
is none, but then other layers answer in another dtype than the model's own, and meta tensors know no autocast, so that
a trace would count a step that never runs. Here the weights, which are small, are cast to the 16 bits, in the step and
in its trace alike; their gradients are in fp32, as they are. Where all is of one dtype nothing changes.
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer

from core.step.optimizer import Optimizer


def adapter_dtype(compute: torch.dtype, optimizer: Optimizer, device: str) -> torch.dtype:
    """The dtype to train adapters in: bf16 as QLoRA does, where the model computes in it and the states stay fp32.

    torch's AdamW keeps its states in the parameters' dtype, and in bf16 its second moment (beta2 0.999) would never
    decay; bitsandbytes' keeps them in fp32. fp16 needs fp32 parameters under its gradient scaler.
    """
    return torch.bfloat16 if compute == torch.bfloat16 and optimizer.pages_on(device) else torch.float32


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
