"""The memory budget: what was asked for, and the least that a recipe can need. Imports no torch.

That floor counts what every strategy needs: quantised weights with their constants, adapters with gradients and
optimizer states, and the process itself. Activations are not included, so a budget above the floor may still be too
small; then the worker runs into its limit, saves, and says so.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace

from core.basemodel.find import FoundModel
from core.basemodel.headers import TensorShape
from core.basemodel.targets import is_called, wanted
from core.errors import BudgetError
from core.recipe import LoraSettings, QuantizationSettings, Recipe
from core.sizes import parse_size, show_size
from core.step.optimizer import candidates
from core.system.compute_dtype import compute_dtype
from core.system.hardware import Device
from core.system.managed_memory import pages_states

# Bits a parameter: 4 for NF4, the 8-bit scales of blocks of 64, their fp32 scales of blocks of 256 (QLoRA, section 3).
NF4_DOUBLE_BITS = 4 + 8 / 64 + 32 / (64 * 256)
NF4_BITS = 4 + 32 / 64
# A worker's resident memory without its tensors, measured in training on Linux with torch 2.13; on a GPU the CUDA
# context, as NVML shows it on cards of compute capability 8 and 9.
CPU_PROCESS_BYTES = 620_000_000
CUDA_CONTEXT_BYTES = 500_000_000
_EMBEDDINGS = re.compile(r"embed_tokens|word_embeddings|wte|embed_in")
_HEAD = re.compile(r"lm_head|embed_out")


@dataclass(frozen=True)
class Budget:
    """The budget in bytes, how it was read, and the least that the recipe needs, where that was asked."""

    bytes: int
    read_as: str
    floor_bytes: int = 0

    @classmethod
    def of(
        cls, asked: str | None, total_bytes: int, rest_bytes: int, rest: str = "what is free for this run"
    ) -> Budget:
        """A recipe's budget on a device of `total_bytes`; `rest_bytes` where it names none. Raises RecipeError."""
        if asked is None:
            return cls(rest_bytes, f"{show_size(rest_bytes)}, {rest}")
        size = parse_size(asked, total_bytes)
        return cls(size, f"{asked} = {show_size(size)}")


def adapter_parameters(found: FoundModel, lora: LoraSettings) -> int:
    """Parameters of the adapters: rank times the sum of each matrix's two sides, and what DoRA and PiSSA add."""
    rank = lora.rank * (2 if lora.init == "pissa" else 1)
    shapes = [shape for shape in found.tensors if shape.quantised and wanted(_module(shape), lora.targets)]
    magnitudes = sum(shape.shape[0] for shape in shapes) if lora.dora else 0
    return magnitudes + sum(rank * (shape.shape[0] + shape.shape[1]) for shape in shapes)


def extra_parameters(found: FoundModel, lora: LoraSettings) -> int:
    """Parameters of the modules that are trained in full. Embeddings and head are found by their usual names."""
    return sum(shape.elements for shape in found.tensors if any(_is(shape, each) for each in lora.extra_modules))


def _module(shape: TensorShape) -> str:
    return shape.name.rpartition(".")[0]


def _is(shape: TensorShape, extra: str) -> bool:
    usual = {"embeddings": _EMBEDDINGS, "head": _HEAD}.get(extra)
    return is_called(_module(shape), extra) if usual is None else bool(usual.search(shape.name))


def floor_bytes(found: FoundModel, recipe: Recipe, device: Device, processes: int | None = None) -> int:
    """The least memory that `recipe` can take on each `device`, as the module's docstring counts it."""
    wide = 4 if compute_dtype(device, found.model_type)[0] == "float32" else 2
    weights = weight_bytes(found, recipe.quantization, wide)
    if recipe.train.sharded:
        weights /= processes or recipe.train.devices
    trained = adapter_parameters(found, recipe.lora) + extra_parameters(found, recipe.lora)
    # Paged states leave the GPU when it is full, so only what cannot leave is counted there.
    rows = candidates(recipe.train.optimizer, pages_states(device))
    states = [0 if each.pages_on(device.kind) else each.state_bytes for each in rows]
    process = CUDA_CONTEXT_BYTES if device.kind == "cuda" else CPU_PROCESS_BYTES
    return int(weights + trained * (wide + wide + min(states)) + process)


def weight_bytes(found: FoundModel, settings: QuantizationSettings, wide: int) -> float:
    """Bytes of a base's weights as they are held; a number that is not quantised takes `wide` of them."""
    four = NF4_DOUBLE_BITS if settings.double else NF4_BITS
    each = {4: four / 8, 8: 1.0, 16: float(wide)}[settings.bits]
    return sum(shape.elements * (each if shape.quantised else wide) for shape in found.tensors)


def context_to_come(device: Device) -> int:
    """What CUDA will take of `device` for this process; 0 on a CPU, and where torch has used the card here already."""
    torch = sys.modules.get("torch")
    has_one = torch is not None and torch.cuda.max_memory_reserved() > 0
    return 0 if device.kind != "cuda" or has_one else CUDA_CONTEXT_BYTES


def read_budget(recipe: Recipe, found: FoundModel, device: Device, processes: int | None = None) -> Budget:
    """The budget of `recipe` on each `device`, of which there are `processes`, or as many as the recipe says.

    Raises BudgetError where it is below the floor or above what the device has.
    """
    budget = Budget.of(recipe.budget, device.total_bytes, device.free_bytes)
    least = floor_bytes(found, recipe, device, processes)
    if budget.bytes < least:
        raise BudgetError(
            f"budget: {budget.read_as} is below what {found.label} with rank {recipe.lora.rank} needs. Allowed: at "
            f"least {show_size(least)}, plus some for activations."
        )
    if budget.bytes > device.total_bytes:
        raise BudgetError(
            f"budget: {budget.read_as} is more than {device.name} has. Allowed: up to {show_size(device.total_bytes)}."
        )
    return replace(budget, floor_bytes=least)
