"""What a paged optimizer keeps in managed memory is the process', and not what torch counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.catalog import find_card
from core.memory.question import Peak
from core.memory.states import managed_bytes
from core.memory.target import of_card
from core.memory.trace import LOADING, Phase, Traced


def _model(*sizes: int) -> torch.nn.Module:
    with torch.device("meta"):
        return torch.nn.ParameterList([torch.nn.Parameter(torch.empty(size)) for size in sizes])


@pytest.mark.parametrize(
    ("optimizer", "bytes_each"),
    [
        ("paged_adamw_32bit", 8),
        ("paged_adamw_8bit", 2),
        ("paged_lion_32bit", 4),
        ("paged_lion_8bit", 1),
        ("adamw_torch_fused", 0),
        ("adamw_8bit", 0),
    ],
)
def test_only_large_tensors_states_are_managed(optimizer: str, bytes_each: int) -> None:
    assert managed_bytes(optimizer, _model(99_999, 100_000, 250_000)) == bytes_each * 350_000


def test_frozen_weights_have_no_states() -> None:
    model = _model(200_000, 300_000)
    next(model.parameters()).requires_grad_(False)
    assert managed_bytes("paged_adamw_32bit", model) == 8 * 300_000


def _phase(name: str, **counted: int) -> Phase:
    none = dict.fromkeys(
        ("weights", "quant_constants", "adapters", "gradients", "optimizer", "activations", "logits", "workspace"), 0
    )
    return Phase(name, {**none, **counted})


def test_torchs_peak_is_without_managed_states_and_the_process_with_them() -> None:
    target = of_card(find_card("rtx-4090-24gb"))
    step = _phase("forward 1", weights=1000 * 2**20, optimizer=300 * 2**20, activations=200 * 2**20)
    loading = _phase(LOADING, weights=1000 * 2**20, workspace=100 * 2**20)
    traced = Traced((loading, step), {}, 0, 256 * 2**20)
    peak = Peak(traced, target)
    assert peak.tensors == (1000 + 300 - 256 + 200) * 2**20 + target.workspace_bytes
    assert peak.process == peak.reserved + 256 * 2**20 + target.context_bytes
    assert sum(peak.breakdown.values()) == peak.process


def test_what_loading_takes_is_kept_by_the_allocator_and_the_states_come_on_top() -> None:
    target = of_card(find_card("rtx-4090-24gb"))
    step = _phase("forward 1", weights=1000 * 2**20, optimizer=300 * 2**20, activations=200 * 2**20)
    loading = _phase(LOADING, weights=1000 * 2**20, workspace=400 * 2**20)
    traced = Traced((loading, step), {}, 0, 256 * 2**20)
    peak = Peak(traced, target)
    assert traced.highest.name == LOADING  # though the step's bytes, managed ones included, are more
    assert peak.process == peak.reserved + 256 * 2**20 + target.context_bytes
    assert sum(peak.breakdown.values()) == peak.process
    without = replace(traced, managed=0)
    assert Peak(without, target).process > peak.process - 256 * 2**20
