"""What transformers and bitsandbytes alone make of a base's files, and whether a model is that to the bit."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import QuantState, quantize_4bit
from bitsandbytes.nn import Params4bit
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from core.model import moe, moe_quantizer


def reference(folder: Path, settings: dict[str, Any], dtype: torch.dtype, device: str = "cpu") -> Any:
    """transformers and bitsandbytes alone; they leave experts in 16 bits."""
    bits = settings["bits"]
    config = None
    if bits == 4:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=settings["type"],
            bnb_4bit_use_double_quant=settings["double"],
            bnb_4bit_compute_dtype=dtype,
        )
    elif bits == 8:
        config = BitsAndBytesConfig(load_in_8bit=True)
    with moe_quantizer.theirs() if bits == 4 else nullcontext():
        return AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=config, dtype=dtype, device_map={"": torch.device(device)},
            experts_implementation=moe.NAME,
        )  # fmt: skip


def _same(found: Any, expected: Any, where: str) -> None:
    """Equal to the bit: tensors, and everything that holds them."""
    assert type(found) is type(expected), where
    if isinstance(expected, torch.Tensor):
        for each in ("dtype", "shape", "device"):
            assert getattr(found, each) == getattr(expected, each), f"{where}.{each}"
        assert found.stride() == expected.stride(), where
        a, b = (each.detach().contiguous().reshape(-1).view(torch.uint8) for each in (found.data, expected.data))
        assert torch.equal(a, b), where
        _same_fields(vars(found), vars(expected), where)
    elif isinstance(expected, QuantState):
        _same_fields(vars(found), vars(expected), where)
    elif not isinstance(expected, torch.nn.Module):
        assert found == expected, where


def _same_fields(found: dict[str, Any], expected: dict[str, Any], where: str) -> None:
    assert set(found) == set(expected), where
    for name, value in expected.items():
        _same(found[name], value, f"{where}.{name}")


def _experts(model: Any) -> set[str]:
    return {f"{name}.{weight}" for name, module in moe.experts_of(model) for weight in moe.fused_weights(module)}


def holds_what_it_should(model: Any, expected: Any, settings: dict[str, Any]) -> None:
    ours = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    theirs = dict(expected.named_parameters(remove_duplicate=False)) | dict(
        expected.named_buffers(remove_duplicate=False)
    )
    assert list(ours) == list(theirs)
    packed = _experts(expected) if settings["bits"] == 4 else set()
    for name, tensor in theirs.items():
        if name in packed:
            _is_packed(ours[name], tensor, settings, name)
        else:
            _same(ours[name], tensor, name)
    for (name, one), (_, other) in zip(model.named_modules(), expected.named_modules(), strict=True):
        assert type(one) is type(other)
        assert getattr(one, "_is_hf_initialized", None) == getattr(other, "_is_hf_initialized", None), name
        if hasattr(other, "quant_state"):
            assert one.quant_state is one.weight.quant_state, name
            assert one.weight.module is one, name


def _is_packed(found: Any, whole: torch.Tensor, settings: dict[str, Any], name: str) -> None:
    """A fused weight of experts, as bitsandbytes packs all of it at once."""
    data, state = quantize_4bit(
        whole.data, blocksize=64, compress_statistics=settings["double"], quant_type=settings["type"]
    )
    assert isinstance(found, Params4bit) and torch.equal(found.data, data), name
    _same(found.quant_state, state, name)


def is_one_model(model: Any, expected: Any) -> None:
    """What others read of a model besides its tensors."""
    pointers = [
        [parameter.data_ptr() for _, parameter in each.named_parameters(remove_duplicate=False)]
        for each in (model, expected)
    ]
    assert [row.index(each) for row in pointers[:1] for each in row] == [
        row.index(each) for row in pointers[1:] for each in row
    ], "what is tied there is tied here"
    for name in ("hf_device_map", "all_tied_weights_keys", "is_quantized", "dtype", "training"):
        assert getattr(model, name, None) == getattr(expected, name, None), name
    assert list(map(repr, model._weight_conversions)) == list(map(repr, expected._weight_conversions))
    for name in ("is_loaded_in_4bit", "is_loaded_in_8bit", "quantization_method"):
        assert getattr(model, name, None) == getattr(expected, name, None), name
