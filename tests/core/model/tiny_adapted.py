"""A tiny model with its adapter, as the settings choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from core.basemodel.find import find_model
from core.model.load import attach_lora, load_base
from core.recipe import LoraSettings, QuantizationSettings
from core.system.hardware import Device

CPU = Device("cpu", "CPU", 2**34, 2**33)


def base_of(folder: Path, bits: int = 4, **settings: Any) -> Any:
    """The model of `folder` on the CPU, in `bits` bits."""
    return load_base(find_model(str(folder)), QuantizationSettings(bits=bits, **settings), CPU)


def adapted_to(folder: Path, bits: int = 4, **lora: Any) -> Any:
    """It with fresh adapters, of rank 4 unless `lora` says otherwise."""
    torch.manual_seed(0)
    return attach_lora(base_of(folder, bits), LoraSettings(**{"rank": 4, "alpha": 8, **lora}), torch.float32)
