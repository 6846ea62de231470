"""The loss on a card: what it takes at most is what the trace counts, for a vocabulary of 128,000."""

import pytest
import torch

from core.memory.tensor_counter import Counter
from core.step.head import Head
from core.step.loss import TrainedTokensLoss

VOCABULARY, WIDTH, TOKENS = 128_000, 16, 400


def _step(device: str) -> None:
    hidden = torch.zeros(TOKENS, WIDTH, dtype=torch.bfloat16, device=device, requires_grad=True)
    weight = torch.zeros(VOCABULARY, WIDTH, dtype=torch.bfloat16, device=device)
    targets = torch.zeros(TOKENS, dtype=torch.long, device=device)
    TrainedTokensLoss.apply(hidden, weight, None, targets, None, Head()).backward()


def test_its_peak_is_the_traced_one() -> None:
    with Counter() as counter:
        _step("meta")
    torch.ones(2, 2, device="cuda").mm(torch.ones(2, 2, device="cuda"))  # cuBLAS' workspace, which stays
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    _step("cuda")
    counted = torch.cuda.max_memory_allocated() - before
    assert counted == pytest.approx(counter.peak, rel=0.01)
    # 131 tokens' logits at once in fp32, and in bf16 while they are cast.
    assert counted == pytest.approx(131 * VOCABULARY * 6 + VOCABULARY * WIDTH * 2, rel=0.01)
