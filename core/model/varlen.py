"""Attention over packed rows by torch's `varlen_attn`: FlashAttention on each conversation, without a mask.

SDPA needs a mask for packed rows, and with one CUDA has no FlashAttention: each layer makes and keeps width² numbers a
row (docs/gpu.md). Importing this registers an implementation of that name with transformers. It answers as SDPA does
where a batch is not packed, and makes SDPA's mask for the layers that the kernel does not suit.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from unittest import mock

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch 2.9 has none
    varlen_attn = None

NAME = "nibble_varlen"
# What FlashAttention computes in, and the widest heads that it takes (torch 2.13, sdp_utils.cpp, `check_dtypes_low_
# precision` and `check_head_dim_size_flash`; its kernel wants multiples of 8: flash_api.cpp, `mha_varlen_fwd`).
DTYPES = (torch.bfloat16, torch.float16)
WIDEST = 256
# Its backward pass has none between these on consumer cards (sdp_utils.cpp, `check_requires_grad_and_head_dim_gt192_
# constraints_on_sm86_89_or_120`).
NOT_BACKWARD = range(193, 225)
# Parameters of `varlen_attn` that torch 2.13 has and 2.10 had not.
_NEEDED = {"scale", "window_size", "enable_gqa"}


def flash_is_built() -> bool:
    """Whether torch has FlashAttention's kernels: PyTorch's wheels for Windows have none.

    (CMakeLists.txt: USE_FLASH_ATTENTION needs "NOT MSVC".) Where torch is a CPU's, a plan is for a card elsewhere.
    """
    if torch.version.cuda is None:
        return sys.platform != "win32"
    return bool(torch.backends.cuda.is_flash_attention_available())


def varlen_suits(device_kind: str, dtype: torch.dtype) -> bool:
    """Whether packed rows may be computed by `varlen_attn` on a device that computes in `dtype`.

    bf16 means compute capability 8.0 or higher (core/system/hardware.py), which FlashAttention needs.
    """
    there = varlen_attn is not None and set(inspect.signature(varlen_attn).parameters) >= _NEEDED
    return there and device_kind == "cuda" and dtype == torch.bfloat16 and flash_is_built()


def use_varlen(model: Any, wanted: bool = True) -> bool:
    """Have `model`, which takes SDPA, compute packed rows by `varlen_attn`, or not. Returns whether it does.

    A model for which transformers does not take SDPA (with soft-capped scores, say) stays as it is.
    """
    config = model.config
    if wanted and config._attn_implementation == "sdpa":
        config._attn_implementation = NAME
    elif not wanted and config._attn_implementation == NAME:
        config._attn_implementation = "sdpa"
    return bool(config._attn_implementation == NAME)


@dataclass
class Packed:
    """What layers get in place of a mask: where conversations start in a batch's rows, laid end to end.

    `starts`: int32 (conversations + 1), the last one the end; `longest` conversation in tokens; `window`: how many
    tokens each sees, itself included, None: all before it. `make_mask` makes the mask that SDPA would get.
    """

    starts: torch.Tensor
    longest: int
    window: int | None
    make_mask: Callable[[], torch.Tensor | None]

    @cached_property
    def mask(self) -> torch.Tensor | None:
        """SDPA's mask, (rows, 1, width, width), made once for all layers that need it."""
        return self.make_mask()


def packed_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., torch.Tensor] = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **others: Any,
) -> Packed | torch.Tensor | None:
    """transformers' mask interface (5.23, masking_utils.py): SDPA's own mask, but Packed where rows are packed.

    Conversations are told apart by what `mask_function` says of neighbours: a token that does not see the one before it
    is the first of its own. transformers allows no skip where it has found packed rows.
    """
    sdpas = partial(
        sdpa_mask,
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        local_size=local_size,
        allow_is_causal_skip=allow_is_causal_skip,
        use_vmap=use_vmap,
        device=device,
        **others,
    )
    if allow_is_causal_skip or use_vmap or attention_mask is not None or q_length != kv_length:
        return sdpas()
    rows = torch.arange(batch_size, device=device)[:, None]
    earlier = torch.arange(q_length - 1, device=device)[None]
    any_head = torch.zeros((), dtype=torch.long, device=device)
    sees_back = mask_function(rows, any_head, earlier + 1, earlier).expand(batch_size, -1)
    if sees_back.is_meta:  # a trace: the starts take next to nothing, however many there are
        starts = torch.empty(batch_size + 1, dtype=torch.int32, device=device)
        return Packed(starts, q_length, local_size, sdpas)
    if mask_function(rows, any_head, earlier, earlier + 1).any():  # not causal
        return sdpas()
    is_first = torch.nn.functional.pad(~sees_back, (1, 0), value=True)
    starts = torch.nn.functional.pad(is_first.flatten().nonzero()[:, 0], (0, 1), value=batch_size * q_length)
    return Packed(starts.to(torch.int32), int(starts.diff().max()), local_size, sdpas)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Packed | torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: `query` (rows, heads, width, size), the result (rows, width, heads, size)."""
    if not isinstance(attention_mask, Packed) or not _suits(query, key, value, dropout, others):
        mask = attention_mask.mask if isinstance(attention_mask, Packed) else attention_mask
        return sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling, **others)
    rows, _, width, size = query.shape
    laid = [each.transpose(1, 2).reshape(rows * width, -1, size) for each in (query, key, value)]
    starts, longest, window = attention_mask.starts, attention_mask.longest, attention_mask.window
    before = -1 if window is None else window - 1
    answer = varlen_attn(
        *laid, starts, starts, longest, longest, scale=scaling, window_size=(before, 0), enable_gqa=True
    )
    return answer.view(rows, width, -1, size), None


@contextmanager
def layers_watched() -> Iterator[list[bool]]:
    """Of each layer that meets packed rows inside, whether it goes without a mask."""
    found: list[bool] = []
    real = _suits

    def noted(*given: Any) -> bool:
        found.append(real(*given))
        return found[-1]

    with mock.patch(f"{__name__}._suits", noted):
        yield found


def _suits(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float, others: Any) -> bool:
    """Whether the kernel computes what SDPA would: it has no dropout, and takes no bias of positions."""
    size = query.shape[-1]
    alike = query.dtype == key.dtype == value.dtype and size == key.shape[-1] == value.shape[-1]
    sizes = alike and size % 8 == 0 and size <= WIDEST and size not in NOT_BACKWARD
    return sizes and query.dtype in DTYPES and not dropout and others.get("position_bias") is None


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, packed_mask)
