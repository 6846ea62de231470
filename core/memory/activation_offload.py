"""Activation offload as trl does it, on meta tensors: what layers save for backward soon leaves the device.

In ordinary memory each tensor takes a pinned block of the next power of two: torch's allocator of pinned memory rounds
up. Its setting `pinned_max_round_threshold_mb` is no way out: it keeps free blocks by power of two all the same, and
hands out one that may be too small (torch 2.13, CachingHostAllocator.h, `allocate` and `get_free_block`).

The rules are those of trl's `OffloadActivations` (torchtune's before it): parameters, small tensors and storages that
are on their way already stay; a tensor leaves when a few more have been saved after it; in the backward pass it is back
from its own node to the next one that fetches.
"""

from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

# trl's defaults: tensors smaller than this stay, and this many may still be on their way out.
SMALLEST = 1024
ON_THEIR_WAY = 5


def pinned_bytes(tensor: torch.Tensor) -> int:
    """The block of pinned memory for a copy of `tensor`; of a broadcast one only what lies in memory is copied."""
    size = tensor.untyped_storage().nbytes() if 0 in tensor.stride() else tensor.nbytes
    return 1 << (size - 1).bit_length()


class Offloaded(saved_tensors_hooks):
    """Inside, what autograd saves of `model`'s step is in ordinary memory, which the counter does not count.

    `most_moved`: the bytes that it takes there, of the micro-batch that takes most.
    """

    def __init__(self, model: Any) -> None:
        self._stay = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
        self._leaving: dict[int, torch.Tensor] = {}
        self._fetched: list[torch.Tensor] = []
        self._number = 0
        self._moved = self.most_moved = 0
        super().__init__(self._keep, self._fetch)

    def release(self) -> None:
        """The backward pass is over: hold nothing any more."""
        self._leaving.clear()
        self._fetched.clear()
        self.most_moved, self._moved = max(self.most_moved, self._moved), 0

    def _keep(self, tensor: torch.Tensor) -> Any:
        self._number += 1
        storage = tensor.untyped_storage()._cdata
        leaving = {each.untyped_storage()._cdata for each in self._leaving.values()}
        if storage in self._stay or storage in leaving or tensor.nbytes < SMALLEST:
            return tensor
        for number in [number for number in self._leaving if number <= self._number - ON_THEIR_WAY]:
            del self._leaving[number]
        self._leaving[self._number] = tensor
        self._moved += pinned_bytes(tensor)
        return self._number, tuple(tensor.shape), tensor.dtype

    def _fetch(self, kept: Any) -> torch.Tensor:
        if isinstance(kept, torch.Tensor):
            return kept
        number, shape, dtype = kept
        tensor = self._leaving.pop(number, None)
        if tensor is None:
            tensor = torch.empty(shape, dtype=dtype, device="meta")
        self._leaving.clear()
        self._fetched = [*self._fetched[-1:], tensor]
        return tensor
