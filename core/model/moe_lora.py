"""LoRA over fused experts as two thin products beside the frozen one; PEFT would add it to a copy of all weights.

PEFT's `ParamWrapper` keeps A and B of all experts of a tensor in two matrices, and in each pass adds BA to W for every
expert, with a gradient as large: gigabytes for one layer of a 30B mixture. It does not support packed weights at all.
Here its wrapper lends A and B to `core.model.moe` during the computation; files stay as PEFT writes them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from bitsandbytes.nn import Params4bit
from peft.tuners.lora.layer import ParamWrapper

from core.model.moe import NAME, Adapter, is_fused, sides_of

_add_to_weights = ParamWrapper._activate_lora
_own_param = ParamWrapper.get_param


def _like_unpacked(self: Any) -> torch.Tensor:
    """The wrapper's parameter as it may be queried: shape, dtype and device; for a packed one, those of its numbers."""
    held = _own_param(self)
    if not isinstance(held, Params4bit):
        return held
    shape, dtype = sides_of(held)
    return torch.empty((), dtype=dtype, device=held.device).expand(shape)


@contextmanager
def _lend(self: Any, active_adapters: list[str]) -> Iterator[None]:
    experts = self.get_base_layer()
    if not (is_fused(experts, self.parameter_name) and experts.config._experts_implementation == NAME):
        with _add_to_weights(self, active_adapters):
            yield
        return
    lent = [_adapter(self, name) for name in active_adapters if name in self.lora_A]
    experts.lent_adapters = {**getattr(experts, "lent_adapters", {}), self.parameter_name: lent}
    try:
        yield
    finally:
        experts.lent_adapters = {**experts.lent_adapters, self.parameter_name: []}


def _adapter(wrapper: Any, name: str) -> Adapter:
    """A and B by expert: PEFT keeps A as (experts * rank, in) and B as (out, rank * experts)."""
    a, b = wrapper.lora_A[name].weight, wrapper.lora_B[name].weight
    count = wrapper.num_experts
    down = a.reshape(count, -1, a.shape[-1])
    up = b.reshape(b.shape[0], -1, count).permute(2, 0, 1).contiguous()  # as grouped products want it
    return Adapter(down, up, wrapper.scaling[name])


def install() -> None:
    """Replace PEFT's wrapper methods in this process."""
    ParamWrapper.get_param = _like_unpacked
    ParamWrapper._activate_lora = _lend
