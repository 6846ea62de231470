"""A GGUF back into a model of transformers: configured by its metadata, its tensors laid out as they were before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGUFReader, ReaderTensor
from transformers import AutoModelForCausalLM

from core.basemodel.find import FoundModel
from core.export.destination import Broken
from core.export.gguf.config import GgufSettings, config_of
from core.export.gguf.families import TensorLayout, family_of
from core.model.load import dtype_for, torch_device
from core.system.hardware import Device

FACTORS = "rope_freqs.weight"


def load_gguf(path: Path, base: FoundModel, here: Device) -> Any:
    """The model in `path` as the file itself describes it, on the device `here`.

    Raises Broken where the file is of another architecture than `base`, or lacks a tensor.
    """
    dtype, _ = dtype_for(here)
    reader = GGUFReader(path)
    settings = GgufSettings(reader)
    if settings.arch != family_of(base.config).arch:
        raise Broken(
            f"The GGUF says that it is a {settings.name} model, which its base is not. The export was deleted."
        )
    config = config_of(settings)
    with torch_device(here):  # at once where it goes: RAM may be too small for it
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    layout = TensorLayout(family_of(config.to_dict()), config)
    held = {tensor.name: tensor for tensor in reader.tensors}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            tensor = held.get(layout.name(name))
            if tensor is None:
                raise Broken(f"The GGUF contains no {name}. The export was deleted.")
            values = _values(tensor).reshape(parameter.shape)
            parameter.copy_(layout.as_before(name, values))
    if FACTORS in held:
        _divide(model, _values(held[FACTORS]))
    return model.to(torch_device(here))


def _values(tensor: ReaderTensor) -> torch.Tensor:
    """In fp32; a copy, for the file is mapped into memory to be read only."""
    return torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type)))


def _divide(model: Any, factors: torch.Tensor) -> None:
    """Divide rotary frequencies by what llama.cpp divides them by (Llama 3.1)."""
    rotary = model.model.rotary_emb
    rotary.inv_freq = rotary.inv_freq / factors.to(rotary.inv_freq)
