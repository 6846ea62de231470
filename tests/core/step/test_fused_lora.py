"""The one pass through base and adapter gives peft's own numbers, forward and backward."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from core.step.fused_lora import fuse


def _loss_and_gradients(model: Any, ids: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    named = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    return loss.item(), named


@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_every_gradient_are_pefts(adapted: Any, checkpointing: bool) -> None:
    torch.manual_seed(5)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.1)
    adapted.train()
    if checkpointing:
        adapted.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        adapted.enable_input_require_grads()
    ids = torch.randint(3, 300, (2, 17))
    expected_loss, expected = _loss_and_gradients(adapted, ids)
    assert fuse(adapted).layers == 14  # seven linear layers in each of two blocks
    loss, gradients = _loss_and_gradients(adapted, ids)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected[name], atol=1e-6), name


def test_a_disabled_adapter_says_what_the_base_says(adapted: Any) -> None:
    ids = torch.randint(3, 300, (1, 9))
    with torch.no_grad(), adapted.disable_adapter():
        base = adapted(input_ids=ids).logits
        fuse(adapted)
        assert torch.equal(adapted(input_ids=ids).logits, base)


def test_a_layer_that_is_computed_again_drops_the_same_numbers(tiny: Any) -> None:
    from core.basemodel.find import find_model
    from core.model.load import attach_lora, load_base
    from core.recipe import LoraSettings, QuantizationSettings
    from core.step.checkpointing import checkpoint
    from core.system.hardware import Device

    base = load_base(find_model(str(tiny)), QuantizationSettings(), Device("cpu", "CPU", 2**34, 2**33))
    model = attach_lora(base, LoraSettings(rank=4, dropout=0.3), torch.float32).train()
    assert fuse(model).layers == 14
    ids = torch.randint(3, 300, (2, 17))
    torch.manual_seed(1)
    expected_loss, expected = _loss_and_gradients(model, ids)
    checkpoint(model, "full")
    torch.manual_seed(1)
    loss, gradients = _loss_and_gradients(model, ids)
    assert loss == expected_loss
    assert all(torch.equal(gradient, expected[name]) for name, gradient in gradients.items())
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_the_adapter_is_saved_as_before(adapted: Any, tmp_path) -> None:
    from safetensors.torch import load_file

    expected = {name: value.clone() for name, value in copy.copy(adapted.state_dict()).items() if "lora_" in name}
    fuse(adapted)
    adapted.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert len(saved) == len(expected) == 28
