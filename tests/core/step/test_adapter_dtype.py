"""Adapters in fp32 over a model in 16 bits compute as under autocast, and keep no copy of what comes in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.autograd.graph import saved_tensors_hooks

from core.step.adapter_dtype import compute_in_input_dtype


class _Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(16, 32), torch.nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))


def _adapted(dtype: torch.dtype, **settings: Any) -> Any:
    torch.manual_seed(3)
    config = LoraConfig(r=4, target_modules=["up", "down"], init_lora_weights=False, **settings)
    model = get_peft_model(_Net().to(dtype), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def _step(model: Any, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], set[tuple[torch.dtype, int]]]:
    kept: set[tuple[torch.dtype, int]] = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.add((tensor.dtype, tensor.numel()))
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = model(x)
    answer.float().square().sum().backward()
    return answer, [each.grad for each in model.parameters() if each.grad is not None], kept


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_answers_and_gradients_are_those_under_autocast(dtype: torch.dtype) -> None:
    x = torch.randn(5, 16, dtype=dtype)
    theirs = _adapted(dtype)
    with torch.autocast("cpu", dtype=dtype):
        expected, their_gradients, _ = _step(theirs, x)
    ours = _adapted(dtype)
    compute_in_input_dtype(ours)
    answer, gradients, kept = _step(ours, x)
    assert answer.dtype == dtype
    assert torch.equal(answer, expected)
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    assert all(torch.equal(one, other) for one, other in zip(gradients, their_gradients, strict=True))
    assert not any(kind == torch.float32 and size >= x.numel() for kind, size in kept)


def test_peft_itself_would_keep_a_copy_in_fp32() -> None:
    _, _, kept = _step(_adapted(torch.bfloat16), torch.randn(5, 16, dtype=torch.bfloat16))
    assert (torch.float32, 5 * 16) in kept


def test_in_one_dtype_nothing_changes() -> None:
    x = torch.randn(5, 16)
    expected, their_gradients, _ = _step(_adapted(torch.float32), x)
    ours = _adapted(torch.float32)
    compute_in_input_dtype(ours)
    answer, gradients, _ = _step(ours, x)
    assert torch.equal(answer, expected)
    assert all(torch.equal(one, other) for one, other in zip(gradients, their_gradients, strict=True))


def test_dora_goes_on_in_fp32_for_its_norms_must_be_exact() -> None:
    model = _adapted(torch.bfloat16, use_dora=True)
    compute_in_input_dtype(model)
    answer, _, kept = _step(model, torch.randn(5, 16, dtype=torch.bfloat16))
    assert answer.dtype == torch.bfloat16
    assert (torch.float32, 5 * 16) in kept


def test_an_8_bit_layer_does_so_too() -> None:
    from bitsandbytes.nn import Linear8bitLt

    torch.manual_seed(3)
    net = _Net().to(torch.bfloat16)
    net.up = Linear8bitLt(16, 32, has_fp16_weights=False).to(torch.bfloat16)
    model = get_peft_model(net, LoraConfig(r=4, target_modules=["up", "down"], init_lora_weights=False))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    compute_in_input_dtype(model)
    lora = model.base_model.model.up
    assert not lora.cast_input_dtype_enabled
    assert lora.lora_A["default"](torch.randn(2, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16
