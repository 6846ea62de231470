"""Rules for GPUs that can be checked without one: the allocator's limit, and attention on cards without bf16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.integrations import sdpa_attention

from core.attention import repeat_keys
from core.hardware import Device
from core.memory.attention import attention_of
from core.memory.constants import Constants
from core.train import limits

CARD = Device("cuda", "Card", 24 * 10**9, 20 * 10**9)


def test_the_allocators_limit_is_the_budget_less_what_it_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (0, CARD.total_bytes))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 9))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, index: set_to.append(share))
    monkeypatch.setattr(limits, "constants_of", lambda card, capability: Constants(400_000_000, 0, measured=True))
    limits.enforce(10 * 10**9, CARD, 0)
    limits.enforce(10 * 10**9, CARD, 1_600_000_000)
    limits.enforce(30 * 10**9, CARD, 0)
    assert set_to == pytest.approx([9.6 / 24, 8.0 / 24, 1.0])


class _Called(TorchDispatchMode):
    """The names of the attention kernels that are called within it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, called: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(called)
        if "scaled_dot_product" in name:
            self.names.append(name.split("_scaled_dot_product_")[1].split(".")[0])
        return called(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("kind", "dtype", "masked", "kernel"),
    [
        ("cuda", torch.bfloat16, False, "flash_attention"),
        ("cuda", torch.bfloat16, True, "efficient_attention"),
        ("cuda", torch.float16, False, "efficient_attention"),
        ("mps", torch.float16, False, "flash_attention"),
    ],
)
@pytest.mark.parametrize("key_heads", [8, 2])
def test_attention_is_traced_as_the_kernel_that_would_run(
    kind: str, dtype: torch.dtype, masked: bool, kernel: str, key_heads: int
) -> None:
    query = torch.empty(1, 8, 32, 64, dtype=dtype, device="meta")
    key = torch.empty(1, key_heads, 32, 64, dtype=dtype, device="meta")
    mask = torch.empty(1, 1, 32, 32, dtype=torch.bool, device="meta") if masked else None
    with attention_of(kind), _Called() as called:
        answer = torch.nn.functional.scaled_dot_product_attention(
            query, key, key, attn_mask=mask, is_causal=not masked, enable_gqa=key_heads != 8
        )
    assert answer.shape == query.shape
    assert called.names == [kernel]


def test_key_heads_are_repeated_once_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdpa_attention, "use_gqa_in_sdpa", sdpa_attention.use_gqa_in_sdpa)  # so that it is put back
    key = torch.empty(1, 2, 32, 64, device="meta")
    assert sdpa_attention.use_gqa_in_sdpa(None, key, key)
    repeat_keys()
    assert not sdpa_attention.use_gqa_in_sdpa(None, key, key)
