"""A quantised linear layer and its adapter in one pass: y = W x + b + s · B A dropout(x).

PEFT computes the base and the adapter one after the other: it copies the base's result, scales the adapter's and adds
them, and does the same backward. Here the base's product is accumulated onto the adapter's, forward and backward, so
that a result is rounded twice and not four times. The weight is dequantised once each way; on a GPU into memory that
all layers share.

Covered: fp32 and 16 bits, a CPU and an NVIDIA GPU; NF4 or FP4 that computes in the dtype it was quantised from; one
active adapter, with dropout or rank-stabilised scaling, its weights in that dtype or in fp32. Everything else takes
PEFT's own pass: DoRA, several or merged adapters, autocast, sharded layers. In 16 bits so do evaluation and
generation: bitsandbytes multiplies a few rows without dequantising the weight.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit, dequantize_blockwise
from bitsandbytes.nn import Params4bit
from peft.tuners.lora.bnb import Linear4bit as LoraLinear4bit

from core.model.lora_init import ADAPTER


class SharedWeight:
    """Memory for one dequantised weight, which the layers of a model use in turn.

    A layer is done with it before the next one writes, recomputing included: it is filled just before the product that
    reads it, and nothing is kept of it for the backward pass. What runs on one CUDA stream runs in that order, so each
    stream has its own. Not covered: several threads on one stream.
    """

    def __init__(self, size: int) -> None:
        """`size` in bytes: that of the largest weight."""
        self.size = size
        self._of_stream: dict[tuple[torch.device, int], torch.Tensor] = {}

    def on(self, device: torch.device) -> torch.Tensor:
        """All of it, as bytes, for the stream of the moment; made when first asked for."""
        stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
        if (device, stream) not in self._of_stream:
            self._of_stream[device, stream] = torch.empty(self.size, dtype=torch.uint8, device=device)
        return self._of_stream[device, stream]

    def shaped(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """The beginning of it as a tensor of that shape. What was in it is lost."""
        return self.on(device)[: shape.numel() * dtype.itemsize].view(dtype).view(shape)


class QuantisedLora(torch.autograd.Function):
    """(tokens, in) to (tokens, out); gradients for the input, A (rank, in) and B (out, rank), none for the base."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        base: Any,
        shared: SharedWeight | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        dropout: float,
    ) -> torch.Tensor:
        """The adapter's product, and the base's accumulated into it. `dropout` is 0 outside training."""
        # The operator that PEFT's dropout ends in on CUDA: it draws the same numbers, and its mask takes a byte each.
        dropped, mask = torch.native_dropout(x, dropout, True) if dropout else (x, None)
        inner = dropped @ a.to(x.dtype).t()
        up = b.to(x.dtype).t()
        bias = base.bias
        y = _product(inner, up, scale) if bias is None else torch.addmm(bias.to(x.dtype), inner, up, alpha=scale)
        y.addmm_(x, _dequantised(base, shared).t())
        ctx.save_for_backward(x, mask, inner, a, b)
        ctx.base, ctx.shared, ctx.scale, ctx.dropout = base, shared, scale, dropout
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Dequantises the base again instead of keeping it: it is stored in four bits to save memory."""
        (dy,) = gradients
        x, mask, inner, a, b = ctx.saved_tensors
        d_inner = dy @ b.to(dy.dtype)
        scale = ctx.scale / (1 - ctx.dropout)  # of the numbers that were not dropped
        dx = da = db = None
        if ctx.needs_input_grad[0]:
            dx = _product(d_inner, a.to(dy.dtype), scale)
            dx = dx if mask is None else dx.mul_(mask)
            dx.addmm_(dy, _dequantised(ctx.base, ctx.shared))
        if ctx.needs_input_grad[3]:
            da = _product(d_inner.t(), x if mask is None else x * mask, scale).to(a.dtype)
        if ctx.needs_input_grad[4]:
            db = _product(dy.t(), inner, ctx.scale).to(b.dtype)
        return dx, None, None, da, db, None, None


def _product(left: torch.Tensor, right: torch.Tensor, scale: float) -> torch.Tensor:
    """scale · left @ right, rounded once. With beta 0 torch ignores what the new tensor holds."""
    return left.new_empty(left.shape[0], right.shape[1]).addmm_(left, right, beta=0, alpha=scale)


def _dequantised(base: Any, shared: SharedWeight | None) -> torch.Tensor:
    """The base's weight (out, in), in `shared` if there is one."""
    packed, state = base.weight.data, base.weight.quant_state
    if shared is None:
        return dequantize_4bit(packed, state)
    weight = shared.shaped(state.shape, state.dtype, packed.device)
    if not packed.is_meta:
        return dequantize_4bit(packed, state, out=weight)
    # bitsandbytes 0.50.2 refuses every `out` of meta tensors (_ops.py compares its shape, a tuple, with a list). What
    # takes memory besides is the constants, dequantised.
    if state.nested:
        dequantize_blockwise(state.absmax, state.state2).add_(state.offset)
    return weight


@dataclass(frozen=True)
class Fused:
    """How many layers of a model use the fused pass, and the memory that they share; None where each has its own."""

    layers: int = 0
    shared: SharedWeight | None = None


def fuse(model: torch.nn.Module, device: str = "cpu") -> Fused:
    """Use the fused pass in every layer of `model` that can, for training on a device of that kind.

    On a CPU layers share nothing: bitsandbytes has no operator there that dequantises into a given tensor.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLinear4bit) and _can(module, device)]
    states = [layer.get_base_layer().weight.quant_state for layer in layers]
    largest = max((state.shape.numel() * state.dtype.itemsize for state in states), default=0)
    shared = SharedWeight(largest) if layers and device == "cuda" else None
    for layer in layers:
        layer.forward = partial(_forward, layer, shared)
    return Fused(len(layers), shared)


def _can(layer: LoraLinear4bit, device: str) -> bool:
    """Whether the layer is of a kind that is covered; what may change from pass to pass, `_may` looks at."""
    base = layer.get_base_layer()
    if not isinstance(base.weight, Params4bit):  # it is sharded over several processes
        return False
    plain = ADAPTER in layer.lora_A and ADAPTER not in layer.lora_variant and not layer.lora_bias[ADAPTER]
    drops = isinstance(layer.lora_dropout[ADAPTER], (torch.nn.Identity, torch.nn.Dropout)) if plain else False
    computes_in = base.compute_dtype or base.weight.quant_state.dtype
    return plain and drops and device in ("cpu", "cuda") and computes_in == base.weight.quant_state.dtype


def _may(layer: LoraLinear4bit, x: torch.Tensor) -> bool:
    """Whether the fused pass is right for `x` as things are."""
    plain = not (layer.disable_adapters or layer.merged) and layer.active_adapters == [ADAPTER]
    known = x.dtype == layer.get_base_layer().weight.quant_state.dtype
    wanted = layer.training or x.dtype == torch.float32
    return plain and known and wanted and (x.is_meta or not torch.is_autocast_enabled(x.device.type))


def _forward(
    layer: LoraLinear4bit, shared: SharedWeight | None, x: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    if args or kwargs or not _may(layer, x):
        return type(layer).forward(layer, x, *args, **kwargs)
    a, b, dropout = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight, layer.lora_dropout[ADAPTER]
    drops = dropout.p if dropout.training and isinstance(dropout, torch.nn.Dropout) else 0.0
    flat = x.reshape(-1, x.shape[-1])
    y = QuantisedLora.apply(flat, layer.get_base_layer(), shared, a, b, layer.scaling[ADAPTER], drops)
    return y.view(*x.shape[:-1], y.shape[-1])
