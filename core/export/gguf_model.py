"""A GGUF back into a model of transformers: its tensors dequantised, renamed, and laid out as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import torch
from gguf import GGUFReader
from transformers import AutoConfig, AutoModelForCausalLM

from core.build import dtype_for, torch_device
from core.export.gguf_families import Layout, family_of
from core.export.place import Broken
from core.hardware import Device
from core.models import FoundModel


def load_gguf(path: Path, base: FoundModel, here: Device) -> Any:
    """The model in `path`, of the architecture of `base`, on the device `here`. Raises Broken where a tensor lacks."""
    dtype, _ = dtype_for(here)
    config = AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
    with torch_device(here):  # at once where it goes: RAM may be too small for it
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    layout = Layout(family_of(base.config), config)
    held = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            tensor = held.get(layout.name(name))
            if tensor is None:
                raise Broken(f"The GGUF holds no {name}. Nothing of it is kept.")
            values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type)).reshape(parameter.shape)
            parameter.copy_(layout.as_before(name, values))
    return model.to(torch_device(here))
