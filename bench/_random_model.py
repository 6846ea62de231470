"""A model of any size with random weights, loaded the ordinary way, though they are neither on a disk nor in memory."""

from __future__ import annotations

from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PreTrainedModel

from core.memory.meta_model import meta_base
from core.model.attention import repeat_keys
from core.model.load import keep_quantisation_exact, quantization_config, torch_device
from core.model.varlen import flash_is_built
from core.recipe import QuantizationSettings, make_recipe
from core.system.hardware import Device

# Every matrix is a view of one strip of random numbers, its rows this far apart: they overlap, and look random.
STRIDE = 17
SCALE = 0.02


def load_random(
    config: dict[str, Any], settings: QuantizationSettings, device: Device, dtype: torch.dtype
) -> PreTrainedModel:
    """A frozen base of random weights on `device`, in the bits of `settings`, made by transformers' own loader.

    It is loaded as `core.model.load.load_base` does: matrix by matrix from main memory, quantised on the device.
    """
    if device.kind == "cuda" and not (dtype == torch.bfloat16 and flash_is_built()):
        repeat_keys()
    known = AutoConfig.for_model(**config)
    model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(known)].from_pretrained(
        None,
        config=known,
        state_dict=random_weights(config, dtype),
        quantization_config=quantization_config(settings, dtype),
        dtype=dtype,
        device_map={"": torch_device(device)},
    )
    keep_quantisation_exact(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def random_weights(config: dict[str, Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every weight of the architecture by name, as views of one strip: a few megabytes, whatever the model's size."""
    unquantised = make_recipe({"quantization.bits": 16}).quantization
    shapes = {name: weight.shape for name, weight in meta_base(config, unquantised, dtype).state_dict().items()}
    longest = max(_strip(shape) for shape in shapes.values())
    strip = torch.randn(longest, generator=torch.Generator().manual_seed(0)).mul_(SCALE).to(dtype)
    ones = torch.ones(max(shape.numel() for shape in shapes.values() if len(shape) == 1), dtype=dtype)
    return {name: _cut(strip, ones, name, shape) for name, shape in shapes.items()}


def _strip(shape: torch.Size) -> int:
    return shape[-1] + STRIDE * (shape.numel() // shape[-1] - 1)


def _cut(strip: torch.Tensor, ones: torch.Tensor, name: str, shape: torch.Size) -> torch.Tensor:
    if len(shape) == 1:
        return (ones if name.endswith("weight") else torch.zeros_like(ones))[: shape[0]]
    return strip.as_strided((shape.numel() // shape[-1], shape[-1]), (STRIDE, 1)).view(shape)
