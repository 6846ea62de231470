"""Kernels as the device will run them: meta tensors have no device, and torch would choose other kernels for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch.nn import functional

from core.model import moe
from core.model.varlen import WIDEST, flash_is_built

_aten = torch.ops.aten
# CUDA's memory-efficient kernel wants heads whose size is a multiple of this in 16 bits, else torch keeps all scores
# (torch 2.13, sdp_utils.cpp, `check_head_dim_size_mem_efficient`), and masks whose rows begin at multiples of it:
# others are copied into wider ones (attention.cpp, `preprocess_mask`).
ALIGNED = 8


@contextmanager
def kernels_of(kind: str) -> Iterator[None]:
    """Inside, attention, dropout and experts of meta tensors call the kernels that a device of `kind` would.

    Attention: torch would take the slow kernel, which keeps all scores. Dropout: CUDA's `native_dropout` keeps a mask
    of one byte a number (ATen's Dropout.cpp, `is_fused_kernel_acceptable`). Experts: a GPU dequantises all at once.
    """
    at_once = moe.suits_groups if kind == "cuda" else lambda *_: False
    with (
        mock.patch.object(functional, "scaled_dot_product_attention", _attention(kind)),
        mock.patch.object(functional, "dropout", _dropout() if kind == "cuda" else functional.dropout),
        mock.patch.object(moe, "at_once", at_once),
    ):
        yield


def _dropout() -> Any:
    real = functional.dropout

    def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        if inplace or not (training and input.is_meta and 0 < p < 1):
            return real(input, p, training, inplace)
        return _aten.native_dropout(input, p, True)[0]

    return dropout


def _attention(kind: str) -> Any:
    real = functional.scaled_dot_product_attention
    # Cards without bf16 have no FlashAttention; `core.model.load` computes fp16 on no others. Apple's GPU takes both.
    quick = (torch.bfloat16, torch.float16) if kind == "mps" else (torch.bfloat16,) if flash_is_built() else ()
    kernel = _on_cpu if kind == "cpu" else partial(_on_gpu, real, quick)

    def attention(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        if not query.is_meta:
            return real(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        if query.shape[1] != key.shape[1] and not enable_gqa:
            # Falcon's one head of keys for all: no fast kernel spreads it, and torch keeps all scores, in fp32
            # (2.13, sdp_utils_cpp.h, `check_batch_size_and_num_heads_dense`).
            return real(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
        return kernel(query, key, value, attn_mask, dropout_p, is_causal, scale)

    return attention


def _as_scores(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A boolean mask turned into what is added to the scores, as torch does before it calls a kernel."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.logical_not(), float("-inf"))


def _on_cpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, dropout: float, causal: bool, scale: Any
) -> torch.Tensor:
    scores = None if mask is None else _as_scores(mask, query.dtype)
    result, _ = _aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout, causal, attn_mask=scores, scale=scale
    )
    return result


def _on_gpu(
    real: Any,
    quick: tuple[torch.dtype, ...],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: Any,
    dropout: float,
    causal: bool,
    scale: Any,
) -> torch.Tensor:
    """FlashAttention where there is no mask and it takes the dtype; else the memory-efficient kernel.

    So it goes by torch 2.13's sdp_utils.cpp, `select_sdp_backend`; cuDNN's kernel, which data centre cards of 9.0 and
    10.0 take first, keeps the same. The mask in the scores' dtype is made anew in each layer, and kept for its backward
    pass (derivatives.yaml, `_scaled_dot_product_efficient_attention`: `attn_bias`).
    """
    alike = query.shape[-1] == value.shape[-1] <= WIDEST
    if mask is None and query.dtype in quick and alike:
        return _aten._scaled_dot_product_flash_attention(query, key, value, dropout, causal, False, scale=scale)[0]
    if query.shape[1] != key.shape[1]:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if query.shape[-1] % ALIGNED or value.shape[-1] % ALIGNED:
        return real(query, key, value, mask, dropout, causal, scale=scale)
    scores = None if mask is None else _as_scores(mask, query.dtype)
    if scores is not None:
        width = scores.shape[-1]
        if width % ALIGNED:
            scores = functional.pad(scores, (0, ALIGNED - width % ALIGNED))[..., :width]
        scores = scores.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    return _aten._scaled_dot_product_efficient_attention(
        query, key, value, scores, query.requires_grad, dropout, causal, scale=scale
    )[0]
