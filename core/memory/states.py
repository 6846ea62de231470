"""What an optimizer keeps for each trained parameter, and which of it is in managed memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

# bitsandbytes keeps no smaller tensor's states in managed memory, nor in 8 bits (0.50.2, `get_state_buffer`,
# `min_8bit_size`).
SMALLEST_PAGED, SMALLEST_8BIT = 100_000, 4096


def embeddings_of(model: Any) -> list[torch.Tensor]:
    """The weights of the model's embeddings."""
    return [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]


def managed_bytes(optimizer: str, model: Any) -> int:
    """Bytes of the states of `model`'s trained parameters that a paged optimizer keeps in managed memory on a GPU."""
    if not optimizer.startswith("paged"):
        return 0
    trained = [each for each in model.parameters() if each.requires_grad and each.numel() >= SMALLEST_PAGED]
    states = OptimizerStates(optimizer, trained, embeddings_of(model))
    return sum(states.moments * each.numel() * (1 if states.in_8_bits(each) else 4) for each in trained)


class OptimizerStates:
    """The states that an optimizer keeps, made at its first step: AdamW's two moments or Lion's one, in its own way.

    transformers has bitsandbytes keep those of `embeddings` in fp32, whatever the optimizer's bits.
    """

    def __init__(self, name: str, parameters: list[torch.Tensor], embeddings: Sequence[torch.Tensor] = ()) -> None:
        self.name, self.parameters = name, parameters
        self.moments = 1 if "lion" in name else 2
        self.wide = {id(parameter) for parameter in embeddings}
        self.made: list[torch.Tensor] = []

    def in_8_bits(self, parameter: torch.Tensor) -> bool:
        """Whether the moments of `parameter` are kept in 8 bits."""
        return "8bit" in self.name and parameter.numel() >= SMALLEST_8BIT and id(parameter) not in self.wide

    def step(self) -> None:
        """What `optimizer.step()` allocates and keeps."""
        if not self.made:
            self.made = [state for parameter in self.parameters for state in self._of(parameter)]

    def _of(self, parameter: torch.Tensor) -> Iterable[torch.Tensor]:
        if "torch" in self.name:  # torch's own counts its steps in a tensor
            step = torch.zeros((), device=parameter.device)
            return [step, *(torch.zeros_like(parameter) for _ in range(self.moments))]
        if self.in_8_bits(parameter):
            blocks = -(-parameter.numel() // 256)
            return [
                *(torch.zeros_like(parameter, dtype=torch.uint8) for _ in range(self.moments)),
                *(torch.zeros(blocks, device=parameter.device) for _ in range(self.moments)),
            ]
        return [torch.zeros_like(parameter, dtype=torch.float32) for _ in range(self.moments)]
