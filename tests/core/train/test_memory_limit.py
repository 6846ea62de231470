"""A GPU's allocator is limited to the budget less what it does not count; checked without one."""

from __future__ import annotations

import pytest
import torch

from core.memory.measured_overhead import MeasuredOverhead
from core.system.hardware import Device
from core.train import memory_limit

CARD = Device("cuda", "Card", 24 * 10**9, 20 * 10**9)


def test_the_allocators_limit_is_the_budget_less_what_it_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (0, CARD.total_bytes))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 9))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, index: set_to.append(share))
    monkeypatch.setattr(
        memory_limit, "constants_of", lambda card, capability: MeasuredOverhead(400_000_000, 0, measured=True)
    )
    monkeypatch.setattr(memory_limit, "_share", None)  # put back at the end
    memory_limit.enforce(10 * 10**9, CARD, 0)
    memory_limit.enforce(10 * 10**9, CARD, 1_600_000_000)
    memory_limit.enforce(30 * 10**9, CARD, 0)
    assert set_to == pytest.approx([9.6 / 24, 8.0 / 24, 1.0])


def test_a_gpus_limit_is_lifted_while_a_run_is_saved_and_put_back_whatever_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_to: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, index: set_to.append(share))
    monkeypatch.setattr(memory_limit, "_share", 0.25)
    with pytest.raises(OSError), memory_limit.lifted():
        assert set_to == [1.0]
        raise OSError
    assert set_to == [1.0, 0.25]
