"""Dropout as the device will run it: a GPU keeps a mask of one byte a number, where meta tensors keep numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch

_aten = torch.ops.aten


@contextmanager
def dropout_of(kind: str) -> Iterator[None]:
    """Inside, dropout of meta tensors calls the kernel that a device of `kind` would.

    On CUDA that is `native_dropout` (ATen's Dropout.cpp, `is_fused_kernel_acceptable`), which keeps a mask of booleans.
    """
    real = torch.nn.functional.dropout

    def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        if inplace or not (training and input.is_meta and 0 < p < 1):
            return real(input, p, training, inplace)
        return _aten.native_dropout(input, p, True)[0]

    if kind != "cuda":
        yield
        return
    with mock.patch.object(torch.nn.functional, "dropout", dropout):
        yield
