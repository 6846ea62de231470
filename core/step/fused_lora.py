"""A quantised linear layer and its adapter in one pass: y = Wx + s·B(Ax).

peft computes the base and the adapter one after the other: it copies the base's result, scales the adapter's and adds
them, and does the same backward. Here the adapter's product is accumulated into the base's, forward and
backward. The numbers are peft's to the rounding of fp32. Covered: fp32 computation (a CPU), NF4 or FP4, one active
adapter, no dropout; all other layers, and all GPUs, use peft's own.
"""

from types import MethodType
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Params4bit
from peft.tuners.lora.bnb import Linear4bit as LoraLinear4bit

from core.model.lora_init import ADAPTER


class QuantisedLora(torch.autograd.Function):
    """(tokens, in) to (tokens, out); gradients for the input, A (rank, in) and B (out, rank), none for the base."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, base: Any, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
        """Dequantise, multiply, and accumulate the adapter's product into the result."""
        weight = dequantize_4bit(base.weight.data, base.weight.quant_state)
        inner = x @ a.t()
        y = x @ weight.t() if base.bias is None else torch.addmm(base.bias, x, weight.t())
        ctx.save_for_backward(x, inner, a, b)
        ctx.base, ctx.scale = base, scale
        return y.addmm_(inner, b.t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Dequantises the base again instead of keeping it: it is stored in four bits to save memory."""
        (dy,) = gradients
        x, inner, a, b = ctx.saved_tensors
        d_inner = dy @ b
        dx = None
        if ctx.needs_input_grad[0]:
            dx = dy @ dequantize_4bit(ctx.base.weight.data, ctx.base.weight.quant_state)
            dx.addmm_(d_inner, a, alpha=ctx.scale)
        da = torch.mm(d_inner.t(), x).mul_(ctx.scale)
        db = torch.mm(dy.t(), inner).mul_(ctx.scale)
        return dx, None, da, db, None


def fuse(model: torch.nn.Module) -> int:
    """Use the fused pass in every layer of `model` that can. Returns how many do."""
    layers = [module for module in model.modules() if isinstance(module, LoraLinear4bit) and _can(module)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def _can(layer: LoraLinear4bit) -> bool:
    plain = ADAPTER in layer.lora_A and ADAPTER not in layer.lora_variant
    no_dropout = plain and isinstance(layer.lora_dropout[ADAPTER], torch.nn.Identity)
    base = layer.get_base_layer()
    if not isinstance(base.weight, Params4bit):  # it is sharded over several processes
        return False
    # A run that is only traced has meta tensors.
    here = base.weight.device.type in ("cpu", "meta")
    return no_dropout and here and base.weight.quant_state.dtype == torch.float32


def _forward(layer: LoraLinear4bit, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if layer.disable_adapters or layer.merged or layer.active_adapters != [ADAPTER] or x.dtype != torch.float32:
        return type(layer).forward(layer, x, *args, **kwargs)
    a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    flat = x.reshape(-1, x.shape[-1])
    y = QuantisedLora.apply(flat, layer.get_base_layer(), a, b, layer.scaling[ADAPTER])
    return y.view(*x.shape[:-1], -1)
