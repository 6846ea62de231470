"""The experts of a mixture: weights in four bits, and products one expert after the other or all at once.

transformers keeps the experts of a layer fused, (experts, out, in), and quantises only plain linear layers: nine tenths
of a mixture would stay in 16 bits. Here a fused tensor is quantised as any other weight is (QLoRA, section 3), and
dequantised for its product, forward and again backward, so that never more than one layer's is unpacked.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit, dequantize_blockwise
from bitsandbytes.nn import Params4bit
from torch.nn.functional import grouped_mm
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

# By this name transformers' `experts_implementation` finds `experts_forward`.
NAME = "nibble"
WEIGHTS = ("gate_up_proj", "up_proj", "down_proj")


def experts_of(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """The modules of `model` with fused experts, by name: those whose computation transformers lets us replace."""
    for name, module in model.named_modules():
        if fused_weights(module):
            yield name, module


def fused_weights(module: torch.nn.Module) -> list[str]:
    """The names of a module's weights that hold every expert's: shape (experts, out, in), or (experts, in, out)."""
    return [name for name in WEIGHTS if is_fused(module, name)]


def is_fused(module: torch.nn.Module, name: str) -> bool:
    """Whether the parameter `name` of `module` is a fused weight that `experts_forward` computes with."""
    held = module._parameters.get(name) if hasattr(module, "is_transposed") and hasattr(module, "has_gate") else None
    return name in WEIGHTS and held is not None and len(shape_of(held)) == 3


@dataclass(frozen=True)
class Adapter:
    """LoRA of every expert of one fused weight: `down` (experts, rank, in), `up` (experts, out, rank)."""

    down: torch.Tensor
    up: torch.Tensor
    scaling: float


def experts_forward(
    self: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """The weighted sum of the chosen experts' answers, for each token.

    `self` is transformers' module of fused experts; `hidden_states` (tokens, width); `top_k_index` and `top_k_weights`
    (tokens, chosen). Returns (tokens, width). The rows are sorted by expert, so that each expert's are contiguous;
    all shapes follow from the inputs' shapes, whichever experts are chosen.
    """
    tokens, chosen = top_k_index.shape
    by_expert, order = torch.sort(top_k_index.reshape(-1), stable=True)
    numbers = torch.arange(self.num_experts, device=by_expert.device)
    ends = torch.searchsorted(by_expert, numbers, right=True).int()
    rows = hidden_states[order // chosen]
    first = "gate_up_proj" if self.has_gate else "up_proj"
    rows = _through(self, first, rows, ends, by_expert)
    rows = self._apply_gate(rows) if self.has_gate else self.act_fn(rows)
    rows = _through(self, "down_proj", rows, ends, by_expert)
    if self.has_post_expert_norm:
        rows = self.post_expert_norm(rows)
    rows = rows * top_k_weights.reshape(-1)[order].unsqueeze(-1)
    places = torch.empty_like(order)
    places[order] = torch.arange(order.shape[0], device=order.device)
    return rows[places].view(tokens, chosen, -1).sum(dim=1).to(hidden_states.dtype)


def _through(experts: Any, name: str, rows: torch.Tensor, ends: torch.Tensor, by_expert: torch.Tensor) -> torch.Tensor:
    """`rows` by one fused weight, its adapters and its biases."""
    weight, turned = getattr(experts, name), not experts.is_transposed
    rows = rows.to(sides_of(weight)[1])
    if weight.requires_grad:  # a module that is trained whole
        result = _trained(rows, weight, ends, turned)
    else:
        result = _Product.apply(rows, weight, ends, turned)
    for adapter in getattr(experts, "lent_adapters", {}).get(name, ()):
        # In the dtype of the rows, as other layers' adapters (core/step/adapter_dtype.py).
        thin = _trained(rows, adapter.down.to(rows.dtype), ends, True)
        result = result + _trained(thin, adapter.up.to(rows.dtype), ends, True) * adapter.scaling
    return result + getattr(experts, f"{name}_bias")[by_expert] if experts.has_bias else result


def _trained(rows: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor, turned: bool) -> torch.Tensor:
    """`rows` by a weight that learns, or an adapter's: (experts, a, b)."""
    if at_once(rows, weight):
        return grouped_mm(rows, weight.transpose(-2, -1) if turned else weight, offs=ends)
    each = weight.unbind(0)  # its gradient is put together once, not once an expert
    if turned:
        each = tuple(one.T for one in each)
    groups = list(_groups(rows, ends))
    pieces = rows.split([end - start for _, start, end in groups])  # so is that of the rows
    parts = [piece @ each[expert] for piece, (expert, _, _) in zip(pieces, groups, strict=True)]
    return torch.cat(parts)


class _Product(torch.autograd.Function):
    """Rows times the frozen weights of their experts, which are dequantised again backward instead of kept."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor, turned: bool) -> torch.Tensor:
        ctx.weight, ctx.ends, ctx.turned = weight, ends, turned
        return product(rows, weight, ends, turned)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return product(gradient.contiguous(), ctx.weight, ctx.ends, not ctx.turned), None, None, None


def product(rows: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor, turned: bool) -> torch.Tensor:
    """`rows` (rows, in), sorted by expert, each times the matrix of its expert, transposed where `turned`.

    `ends` (experts,): before which row each expert's end. `weight` (experts, a, b), in four bits or not.
    """
    if at_once(rows, weight):
        whole = dequantised(weight)
        return grouped_mm(rows, whole.transpose(-2, -1) if turned else whole, offs=ends)
    matrix = _matrices(weight)
    result = rows.new_empty(rows.shape[0], shape_of(weight)[1 if turned else 2])
    for expert, start, end in _groups(rows, ends):
        one = matrix(expert)
        torch.mm(rows[start:end], one.T if turned else one, out=result[start:end])
        del one  # before the next is unpacked
    return result


def at_once(rows: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether to dequantise all experts for one grouped product: on a GPU that has it, with enough rows."""
    return rows.is_cuda and torch.cuda.get_device_capability(rows.device) >= (8, 0) and suits_groups(rows, weight)


def suits_groups(rows: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether these suit the grouped product: bf16, sides that are multiples of 8, and enough rows for most experts."""
    experts, *sides = shape_of(weight)
    return rows.dtype == torch.bfloat16 and not any(side % 8 for side in sides) and rows.shape[0] >= experts


def _groups(rows: torch.Tensor, ends: torch.Tensor) -> Iterator[tuple[int, int, int]]:
    """(expert, first row, row after its last) for each expert that has rows. On meta tensors one has them all."""
    if ends.is_meta:
        yield 0, 0, rows.shape[0]
        return
    start = 0
    for expert, end in enumerate(ends.tolist()):
        if end > start:
            yield expert, start, end
        start = end


def dequantised(weight: torch.Tensor) -> torch.Tensor:
    """All of `weight`, unpacked where it is in four bits."""
    return dequantize_4bit(weight.data, weight.quant_state) if isinstance(weight, Params4bit) else weight


def _matrices(weight: torch.Tensor) -> Callable[[int], torch.Tensor]:
    """A function that gives one expert's matrix, and unpacks no other."""
    if not isinstance(weight, Params4bit):
        return lambda expert: weight[expert]
    state = weight.quant_state
    sides = shape_of(weight)[1:]
    numbers = sides.numel()
    if numbers % state.blocksize:  # a block of numbers reaches into the next expert
        whole = dequantised(weight)
        return lambda expert: whole[expert]
    scales = state.absmax
    if state.nested:
        scales = dequantize_blockwise(state.absmax, state.state2) + state.offset
    packed, blocks = weight.data.reshape(-1).view(torch.uint8), numbers // state.blocksize
    same = {name: getattr(state, name) for name in ("code", "dtype", "blocksize", "quant_type")}

    def matrix(expert: int) -> torch.Tensor:
        own = QuantState(scales[expert * blocks : (expert + 1) * blocks].float(), shape=sides, **same)
        half = numbers // 2
        return dequantize_4bit(packed[expert * half : (expert + 1) * half].unsqueeze(1), own)

    return matrix


def shape_of(weight: torch.Tensor) -> torch.Size:
    """The shape of the numbers that `weight` stands for, packed or not."""
    return weight.quant_state.shape if isinstance(weight, Params4bit) and weight.bnb_quantized else weight.shape


def sides_of(weight: torch.Tensor) -> tuple[torch.Size, torch.dtype]:
    """The shape and dtype of the numbers that `weight` stands for, packed or not."""
    packed = isinstance(weight, Params4bit) and weight.bnb_quantized
    return shape_of(weight), weight.quant_state.dtype if packed else weight.dtype


ALL_EXPERTS_FUNCTIONS.register(NAME, experts_forward)
