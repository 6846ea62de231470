"""Where no more memory can be pinned, activations are offloaded to ordinary memory; if that runs out, it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from core.errors import BudgetError
from core.memory.budget import Budget
from core.memory.strategy import Strategy
from core.runs.store import Run
from core.train import ending
from core.train.activation_offload import NOT_PINNED, unpin_on_failure
from core.train.oom_retry import OomFallback, OutOfRoom, Shortage, attempt

# As CUDA says it through torch 2.13, and as torch's own allocator of the GPU's memory does.
NO_PINS = RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")
NO_GPU_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
NO_RAM = RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                      "tried to allocate 4096 bytes. Error code 12 (Cannot allocate memory)")  # fmt: skip


class Manager(saved_tensors_hooks):
    """Offloads as trl's does; memory for `pins` copies can be pinned, then `error` is raised."""

    def __init__(self, pins: int, error: Exception) -> None:
        self.use_pin_memory, self.pins, self.error = True, pins, error
        self.kept: list[tuple[torch.Tensor, bool]] = []
        super().__init__(self._pack, lambda number: self.kept[number][0])

    def _pack(self, tensor: torch.Tensor) -> int:
        if self.use_pin_memory and sum(pinned for _, pinned in self.kept) == self.pins:
            raise self.error
        self.kept.append((tensor.detach().clone(), self.use_pin_memory))
        return len(self.kept) - 1


def _gradient(manager: Any) -> torch.Tensor:
    values = torch.linspace(0, 1, 8, requires_grad=True)
    with manager:
        result = values
        for _ in range(4):
            result = result.exp().sin()
    result.sum().backward()
    assert values.grad is not None
    return values.grad


def test_what_cannot_be_pinned_is_kept_in_ordinary_memory_and_said_once() -> None:
    said: list[str] = []
    manager = unpin_on_failure(Manager(3, NO_PINS), said.append)
    assert torch.equal(_gradient(manager), _gradient(Manager(100, NO_PINS)))
    assert said == [NOT_PINNED]
    assert [pinned for _, pinned in manager.kept] == [True] * 3 + [False] * (len(manager.kept) - 3)
    _gradient(manager)
    assert said == [NOT_PINNED], "the next step does not try again"


@pytest.mark.parametrize("error", [NO_GPU_MEMORY, RuntimeError("CUDA error: an illegal memory access")], ids=str)
def test_another_error_is_not_taken_for_that(error: Exception) -> None:
    said: list[str] = []
    with pytest.raises(type(error), match=str(error)[:20]):
        _gradient(unpin_on_failure(Manager(2, error), said.append))
    assert not said


def test_a_run_whose_activations_fit_ordinary_memory_no_more_offloads_nothing() -> None:
    ways: list[Strategy] = []
    room = {"left": True}
    fallback = OomFallback(
        Strategy(1, "half"), 4, lambda before, now, why: ways.append(now), "cuda", lambda strategy: room["left"]
    )
    assert fallback.step_down(Shortage(None)) == Strategy(1, "full")
    room["left"] = False
    with pytest.raises(OutOfRoom):
        fallback.step_down(Shortage(None))
    room["left"] = True
    assert fallback.step_down(Shortage(None)) == Strategy(1, "full", offload=True)
    assert ways[-1].offload


def _fails(error: Exception) -> Any:
    def work() -> None:
        raise error

    return attempt(work)


@pytest.mark.parametrize(("kind", "error", "ordinary"), [("cuda", NO_RAM, True), ("cuda", NO_GPU_MEMORY, False)])
def test_ordinary_memory_that_ran_out_is_no_reason_for_a_bigger_budget(
    kind: str, error: Exception, ordinary: bool, tmp_path: Path
) -> None:
    fallback = OomFallback(Strategy(1, "full", offload=True), 4, lambda *_: None, kind)
    with pytest.raises(OutOfRoom) as ended:
        fallback.step_down(_fails(error))
    run = Run(tmp_path)
    with pytest.raises(BudgetError) as told:
        ending.out_of_memory(run, None, None, Budget(2**30, "1 GiB"), ended.value)  # type: ignore[arg-type]
    assert ("Raise the budget to" not in str(told.value)) is ordinary
    assert ("Ordinary memory ran out" in str(told.value)) is ordinary


def test_on_a_cpu_it_is_the_budget() -> None:
    """There ordinary memory is what the budget is about."""
    with pytest.raises(OutOfRoom) as ended:
        OomFallback(Strategy(1, "full", heap="returned"), 4, lambda *_: None, "cpu").step_down(_fails(NO_RAM))
    assert not ended.value.shortage.in_ram
