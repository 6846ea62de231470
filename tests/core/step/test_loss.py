"""The loss from the trained tokens alone is cross-entropy over the whole batch's logits, and so is its gradient."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from core.memory.tensor_counter import Counter
from core.step import loss as head_loss
from core.step.head import Head
from core.step.loss import TrainedTokensLoss, summed_loss

PLAIN = Head()


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize("at_once", [7, 10**9])
def test_loss_and_gradients_are_torchs(
    monkeypatch: pytest.MonkeyPatch,
    cap: float | None,
    scale: float,
    bias: bool,
    weighted: bool,
    trained_head: bool,
    at_once: int,
) -> None:
    monkeypatch.setattr(head_loss, "LOGITS_AT_ONCE", at_once)  # 7: one token at a time
    torch.manual_seed(1)
    head = torch.nn.Linear(8, 6, bias=bias).requires_grad_(trained_head)
    hidden = torch.randn(11, 8, requires_grad=True)
    targets = torch.randint(6, (11,))
    logits = scale * head(hidden)
    weights = torch.rand(11) if weighted else None
    each = cross_entropy(logits if cap is None else cap * torch.tanh(logits / cap), targets, reduction="none")
    expected = (each if weights is None else each * weights).sum()
    to_train = [hidden, *(head.parameters() if trained_head else ())]
    wanted = torch.autograd.grad(expected * 0.3, to_train)
    found = TrainedTokensLoss.apply(hidden, head.weight, head.bias, targets, weights, Head(scale, cap))
    gradients = torch.autograd.grad(found * 0.3, to_train)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for gradient, expected_gradient in zip(gradients, wanted, strict=True):
        assert torch.allclose(gradient, expected_gradient, atol=1e-6)


def test_a_batch_without_a_target_gives_a_zero_that_can_be_backpropagated(adapted: Any) -> None:
    ids = torch.randint(3, 300, (2, 9))
    loss = summed_loss(adapted.get_base_model(), PLAIN, torch.full_like(ids, -100), input_ids=ids)
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
    loss = summed_loss(adapted.get_base_model(), PLAIN, labels, input_ids=ids)
    for found, wanted in zip(torch.autograd.grad(loss / 14, trained), expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)


def _peak_bytes(work: Callable[[], object]) -> int:
    """The most that torch's allocator had given out at once during `work`, by its own record."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    given = [each.nbytes() for each in profile.profiler.kineto_results.events() if each.name() == "[memory]"]
    return max(accumulate(given))


@pytest.mark.parametrize("cap", [None, 30.0])
def test_its_memory_is_what_the_trace_sees_and_two_parts_are_never_there_at_once(
    monkeypatch: pytest.MonkeyPatch, cap: float | None
) -> None:
    """A vocabulary of 128,000 in bf16: a part's logits in fp32 and, while they are cast, in bf16; or a cap's slope."""
    monkeypatch.setattr(head_loss, "LOGITS_AT_ONCE", 2**21)
    vocabulary, tokens = 128_000, 64

    def step(device: str) -> None:
        hidden = torch.zeros(tokens, 8, dtype=torch.bfloat16, device=device, requires_grad=True)
        weight = torch.zeros(vocabulary, 8, dtype=torch.bfloat16, device=device)
        targets = torch.zeros(tokens, dtype=torch.long, device=device)
        TrainedTokensLoss.apply(hidden, weight, None, targets, None, Head(cap=cap)).backward()

    with Counter() as counter:
        step("meta")
    counted = _peak_bytes(lambda: step("cpu"))
    part = (2**21 // vocabulary) * vocabulary * 4
    weight = vocabulary * 8 * 2
    assert counted == pytest.approx(counter.peak, rel=0.01)
    assert counted == pytest.approx(weight + part * (1.5 if cap is None else 2), rel=0.01)
