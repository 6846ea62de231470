"""What an optimizer keeps for each trained parameter, and which of it is in managed memory."""

from collections.abc import Iterable

import torch

from core.step.optimizer import TORCH_ADAMW, Optimizer
from core.system.managed_memory import SMALLEST_PAGED

# bitsandbytes keeps no smaller tensor's states in 8 bits (0.50.2, `min_8bit_size`).
SMALLEST_8BIT = 4096


class OptimizerStates:
    """The states that an optimizer keeps for what is trained of a model; they are made at its first step.

    transformers has bitsandbytes keep those of embeddings in fp32, whatever the optimizer's bits. On a GPU a paged
    optimizer keeps the large ones in managed memory: those are not made, but counted by `managed_bytes`.
    """

    def __init__(self, optimizer: Optimizer, device: str, model: torch.nn.Module) -> None:
        self.optimizer = optimizer
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.paged = optimizer.pages_on(device)
        self.by_torch = optimizer.name_on(device) == TORCH_ADAMW
        self.wide = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
        self.made: list[torch.Tensor] = []

    @property
    def managed_bytes(self) -> int:
        """What is kept in managed memory, which torch does not count."""
        managed = filter(self._is_managed, self.parameters)
        return sum(self.optimizer.moments * each.numel() * self._dtype(each).itemsize for each in managed)

    def step(self) -> None:
        """What `optimizer.step()` allocates and keeps."""
        if not self.made:
            self.made = [state for parameter in self.parameters for state in self._of(parameter)]

    def _is_managed(self, parameter: torch.Tensor) -> bool:
        return self.paged and parameter.numel() >= SMALLEST_PAGED

    def _dtype(self, parameter: torch.Tensor) -> torch.dtype:
        if self.by_torch:
            return parameter.dtype
        narrow = self.optimizer.bits == 8 and parameter.numel() >= SMALLEST_8BIT and id(parameter) not in self.wide
        return torch.uint8 if narrow else torch.float32

    def _of(self, parameter: torch.Tensor) -> Iterable[torch.Tensor]:
        dtype = self._dtype(parameter)
        if self.by_torch:  # torch's own counts its steps in a tensor
            yield torch.zeros((), device=parameter.device)
        if not self._is_managed(parameter):
            yield from (torch.zeros_like(parameter, dtype=dtype) for _ in range(self.optimizer.moments))
        if dtype == torch.uint8:  # a scale for each block
            blocks = -(-parameter.numel() // 256)
            yield from (torch.zeros(blocks, device=parameter.device) for _ in range(self.optimizer.moments))
