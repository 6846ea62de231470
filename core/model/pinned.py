"""Whether memory could not be pinned: systems limit what a GPU may copy from while it computes."""

import torch

from core.model.load import is_out_of_memory


def pinning_failed(error: BaseException) -> bool:
    """Whether memory could not be pinned: CUDA's own error, not that of torch's allocator of the GPU's memory.

    cudaHostAlloc's "CUDA error: out of memory" comes as it is (torch 2.13, ATen/cuda/CachingHostAllocator.cpp,
    `allocate_host_memory`); the other allocator raises torch.OutOfMemoryError.
    """
    return is_out_of_memory(error) and not isinstance(error, torch.OutOfMemoryError)
