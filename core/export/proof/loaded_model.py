"""A model in memory that is asked for the proof: how it replies, and with which logits; and where it has room."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from core.errors import NibbleError
from core.memory.budget import context_to_come
from core.model.load import dtype_for
from core.sizes import show_size
from core.system.hardware import Device, device

# Held in 4 bits, with embeddings and head in 16: at most so much a parameter, and what a pass takes on top.
PACKED_BYTES, SPARE_BYTES = 1.2, 600_000_000


@dataclass(frozen=True)
class LoadedModel:
    """`settings` gives the arguments of transformers' `generate` for a greedy reply of at most so many tokens."""

    model: Any
    settings: Callable[[int], dict[str, Any]]

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @torch.no_grad()
    def reply(self, ids: list[int], most: int) -> list[int]:
        """The reply to these tokens, with the token that ends it, if one does."""
        given = torch.tensor([ids], device=self.model.device)
        output = self.model.generate(input_ids=given, attention_mask=torch.ones_like(given), **self.settings(most))
        return list(output[0, len(ids) :].tolist())

    @torch.no_grad()
    def logits(self, ids: list[int], reply: list[int]) -> torch.Tensor:
        """The logits (tokens of the reply, vocabulary) of a given reply, in fp32 on the CPU."""
        forced = torch.tensor([ids + reply], device=self.model.device)
        found: torch.Tensor = self.model(input_ids=forced, attention_mask=torch.ones_like(forced)).logits
        return found[0, len(ids) - 1 : -1].float().cpu()


def place_for(parameters: int, packed: bool, model_type: str) -> Device:
    """The device if so many parameters have room there, else the CPU. Raises NibbleError where neither has.

    `packed`: held in 4 bits. `model_type` decides with the device what they are computed in.
    """
    memory = psutil.virtual_memory()
    cpu = Device("cpu", "CPU", int(memory.total), int(memory.available))
    for each in (device(), cpu):
        dtype, _ = dtype_for(each, model_type)
        needed = parameters * (PACKED_BYTES if packed else dtype.itemsize) + SPARE_BYTES + context_to_come(each)
        if each.free_bytes >= needed:
            return each
    raise NibbleError(f"loading it takes {show_size(needed)}, and {show_size(cpu.free_bytes)} are free")
