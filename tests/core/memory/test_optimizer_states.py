"""What a paged optimizer keeps in managed memory is the process', and not what torch counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.catalogue.facts import find_card
from core.memory.device import of_card
from core.memory.optimizer_states import OptimizerStates
from core.memory.problem import Peak
from core.memory.trace import LOADING, Phase, Traced
from core.step.optimizer import OPTIMIZERS


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
        ("adamw", 0),
    ],
)
def test_only_large_tensors_states_are_managed(optimizer: str, bytes_each: int) -> None:
    model = _model(99_999, 100_000, 250_000)
    assert OptimizerStates(OPTIMIZERS[optimizer], "cuda", model).managed_bytes == bytes_each * 350_000
    assert OptimizerStates(OPTIMIZERS[optimizer], "cpu", model).managed_bytes == 0


def test_frozen_weights_have_no_states() -> None:
    model = _model(200_000, 300_000)
    next(model.parameters()).requires_grad_(False)
    assert OptimizerStates(OPTIMIZERS["paged_adamw_32bit"], "cuda", model).managed_bytes == 8 * 300_000


def test_a_trained_embeddings_states_are_wide_whatever_the_optimizers_bits() -> None:
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Embedding(1000, 200), torch.nn.Linear(200, 1000, bias=False))
    assert OptimizerStates(OPTIMIZERS["paged_adamw_8bit"], "cuda", model).managed_bytes == 200_000 * (8 + 2)


@pytest.mark.parametrize("optimizer", ["paged_adamw_32bit", "paged_adamw_8bit"])
def test_what_is_managed_is_not_made(optimizer: str) -> None:
    model = _model(99_999, 250_000)
    managed = OptimizerStates(OPTIMIZERS[optimizer], "cuda", model)
    ordinary = OptimizerStates(replace(OPTIMIZERS[optimizer], paged=False), "cuda", model)
    for states in (managed, ordinary):
        states.step()
    made, all_of_it = (sum(each.nbytes for each in states.made) for states in (managed, ordinary))
    assert made + managed.managed_bytes == all_of_it


def _phase(name: str, **counted: int) -> Phase:
    none = dict.fromkeys(
        ("weights", "quant_constants", "adapters", "gradients", "optimizer", "activations", "logits", "workspace"), 0
    )
    return Phase(name, {**none, **counted})


def test_torchs_peak_is_without_managed_states_and_the_process_with_them() -> None:
    target = of_card(find_card("rtx-4090-24gb"))
    step = _phase("forward 1", weights=1000 * 2**20, optimizer=44 * 2**20, activations=200 * 2**20)
    loading = _phase(LOADING, weights=1000 * 2**20, workspace=100 * 2**20)
    peak = Peak(Traced((loading, step), {}, managed=256 * 2**20), target)
    assert peak.tensors == (1000 + 44 + 200) * 2**20 + target.workspace_bytes
    assert peak.process == target.reserved(peak.tensors) + 256 * 2**20 + target.context_bytes
    assert sum(peak.breakdown.values()) == peak.process
    assert peak.breakdown["optimizer"] == 300 * 2**20


def test_what_loading_takes_is_kept_by_the_allocator_and_the_states_come_on_top() -> None:
    target = of_card(find_card("rtx-4090-24gb"))
    step = _phase("forward 1", weights=1000 * 2**20, optimizer=44 * 2**20, activations=200 * 2**20)
    loading = _phase(LOADING, weights=1000 * 2**20, workspace=400 * 2**20)
    peak = Peak(Traced((loading, step), {}, managed=256 * 2**20), target)
    assert peak.tensors == 1400 * 2**20 + target.workspace_bytes
    assert peak.process == target.reserved(peak.tensors) + 256 * 2**20 + target.context_bytes
    assert sum(peak.breakdown.values()) == peak.process
