"""Activation offload in pinned memory, and in ordinary memory where the system pins no more.

Pinned memory is what a GPU copies to while it computes. Systems limit it: WSL2 was seen to pin 0.5 to 1 GiB in all
(microsoft/WSL#14078, FlashML-org/FreeToken#233; NVIDIA's CUDA on WSL User Guide, "Known Limitations").
"""

from collections.abc import Callable
from typing import Any

import torch
from trl.models import get_act_offloading_ctx_manager

from core.model.pinned import pinning_failed

NOT_PINNED = (
    "The system pins no more memory (WSL2 allows about 1 GiB), so activations are offloaded to ordinary memory "
    "instead, which is slower. The result stays the same."
)


def offload_activations(model: Any, report: Callable[[str], object]) -> Any:
    """trl's context manager for `model`; where pinning fails, a sentence goes to `report`, once."""
    return unpin_on_failure(get_act_offloading_ctx_manager(model=model), report)


def unpin_on_failure(manager: Any, report: Callable[[str], object]) -> Any:
    """Have trl's `manager` save in ordinary memory what could not be saved in pinned memory, and all that follows.

    trl asks for the copy's memory before it changes anything of its own, so it can be asked again (trl 1.16,
    activation_offloading.py, `pack_tensor`). Returns `manager`.
    """
    pack = manager.pack_hook

    def save(tensor: torch.Tensor) -> Any:
        try:
            return pack(tensor)
        except RuntimeError as error:
            if not (manager.use_pin_memory and pinning_failed(error)):
                raise
        manager.use_pin_memory = False
        report(NOT_PINNED)
        return pack(tensor)

    manager.pack_hook = save
    return manager


def forget_pass(manager: Any) -> None:
    """Let go of what `manager` holds after a backward pass: the embeddings of that micro-batch, and their gradient.

    It keeps the graph's last node until the next backward pass, and with it the leaf before that (trl 1.16,
    activation_offloading.py, `curr_autograd_node`): twice what one layer offloads, at the peak of the next pass.
    """
    if hasattr(manager, "curr_autograd_node"):
        manager.curr_autograd_node = None
