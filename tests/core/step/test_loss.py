"""The loss from the trained tokens alone is cross-entropy over the whole batch's logits, and so is its gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from core.step import loss as head_loss
from core.step.loss import TrainedTokensLoss, head_is_exact, summed_loss


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize("at_once", [7, 10**9])
def test_loss_and_gradients_are_torchs(
    monkeypatch: pytest.MonkeyPatch, cap: float | None, bias: bool, weighted: bool, trained_head: bool, at_once: int
) -> None:
    monkeypatch.setattr(head_loss, "LOGITS_AT_ONCE", at_once)  # 7: one token at a time
    torch.manual_seed(1)
    head = torch.nn.Linear(8, 6, bias=bias).requires_grad_(trained_head)
    hidden = torch.randn(11, 8, requires_grad=True)
    targets = torch.randint(6, (11,))
    logits = head(hidden)
    weights = torch.rand(11) if weighted else None
    each = cross_entropy(logits if cap is None else cap * torch.tanh(logits / cap), targets, reduction="none")
    expected = (each if weights is None else each * weights).sum()
    to_train = [hidden, *(head.parameters() if trained_head else ())]
    wanted = torch.autograd.grad(expected * 0.3, to_train)
    found = TrainedTokensLoss.apply(hidden, head.weight, head.bias, targets, weights, cap)
    gradients = torch.autograd.grad(found * 0.3, to_train)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for gradient, expected_gradient in zip(gradients, wanted, strict=True):
        assert torch.allclose(gradient, expected_gradient, atol=1e-6)


def test_a_batch_without_a_target_gives_a_zero_that_can_be_backpropagated(adapted: Any) -> None:
    ids = torch.randint(3, 300, (2, 9))
    loss = summed_loss(adapted.get_base_model(), torch.full_like(ids, -100), input_ids=ids)
    loss.backward()
    assert loss.item() == 0.0
    assert all(not p.grad.any() for p in adapted.parameters() if p.grad is not None)


def test_every_adapter_gets_the_gradient_that_the_models_own_loss_gives(adapted: Any) -> None:
    torch.manual_seed(2)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data.normal_(std=0.1)
    ids = torch.randint(3, 300, (2, 13))
    labels = ids.clone()
    labels[:, :6] = -100  # the first of each row too: it has nothing before it
    expected = torch.autograd.grad(adapted(input_ids=ids, labels=labels, use_cache=False).loss, trained)
    loss = summed_loss(adapted.get_base_model(), labels, input_ids=ids)
    for found, wanted in zip(torch.autograd.grad(loss / 14, trained), expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "opt", "qwen3", "gemma2", "granite"])
def test_the_proof_knows_which_heads_it_may_replace(tmp_path: Path, family: str) -> None:
    """Granite divides its logits by a number that we do not know of: there the proof must say no."""
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    more = {"opt": {"ffn_dim": 64, "word_embed_proj_dim": 32}, "granite": {"logits_scaling": 3.0}}.get(family, {})
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    config = AutoConfig.for_model(family, **small, **heads, **more)
    model = AutoModelForCausalLM.from_config(config).requires_grad_(False)
    assert head_is_exact(model) is (family != "granite")
