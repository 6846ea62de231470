"""A budget is enforced and held: nothing that a run asks for on a card goes beyond it, and the plan keeps within it."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from core.memory.estimate import make_plan
from core.recipe import make_recipe
from core.workspace import Workspace
from tests.gpu.in_process import after_step, events, finished, settings, train
from tests.gpu_standin.install import machine as the_machine
from tests.gpu_standin.machine import Card, Machine
from tests.tiny import tiny_model

MIB = 2**20
BUDGET = 700 * 10**6


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers with matrices of 256 by 256, and a large vocabulary."""
    folder = tmp_path_factory.mktemp("models") / "wide"
    return tiny_model(folder, hidden_size=256, vocab_size=8192)


def with_paged_states(wide: Path, rows: Path, **more: Any) -> dict[str, Any]:
    """The adapter's matrices have more numbers than bitsandbytes leaves unpaged."""
    return settings(wide, rows, **{"lora.rank": 400, "train.max_steps": 2, "train.learning_rate": 0.001, **more})


def used() -> int:
    """Bytes of the card that this process has, as the driver counts them: context, torch's, managed memory."""
    mine = next(each for each in the_machine().process if each.pid == os.getpid())
    return int(mine.bytes + mine.managed)


# A card that is soon full, and whose driver takes for a context what the plan counts.
SMALL = Machine(cards=(Card("NVIDIA small", (8, 6), 1800),), context_mib=476)


@pytest.mark.machine(SMALL)
def test_nothing_goes_beyond_the_budget(wide, rows_file, tmp_path) -> None:
    check_enforced(tmp_path, with_paged_states(wide, rows_file, budget="700MB"))


def check_enforced(folder: Path, values: dict[str, Any]) -> None:
    """A run takes what it can get: that is all of the budget and no more, by the driver's count."""
    managed = used() - next(each for each in the_machine().process if each.pid == os.getpid()).bytes if _here() else 0
    most: list[int] = []

    def take_all(watcher: Any) -> None:
        taken = []
        with pytest.raises(torch.OutOfMemoryError):
            while True:
                taken.append(torch.empty(2 * MIB, dtype=torch.uint8, device="cuda"))
        most.append(used() - managed)
        del taken
        torch.cuda.empty_cache()

    with pytest.MonkeyPatch.context() as patch:
        after_step(patch, 1, take_all)
        run = finished(train(Workspace.open(folder / "enforced"), values))
    assert "enforced by torch's allocator" in events(run, "budget")
    assert BUDGET - 10 * 10**6 < most[0] <= BUDGET


def _here() -> bool:
    return any(each.pid == os.getpid() for each in the_machine().process)


def test_a_run_within_the_smallest_budget_that_the_plan_names_needs_no_more(wide, rows_file, tmp_path) -> None:
    workspace = Workspace.open(tmp_path)
    values = with_paged_states(wide, rows_file, **{"train.max_steps": 4})
    smallest = make_plan(make_recipe({**values, "budget": "100MB"}), workspace).smallest_budget_bytes
    run = finished(train(workspace, {**values, "budget": f"{smallest}B"}))
    assert events(run) == "" and "changed" not in run.plan()
    found, predicted = run.result()["peak_bytes"], run.result()["predicted_peak_bytes"]
    assert found["process"] <= predicted["process"] <= smallest
    assert found["reserved"] <= predicted["reserved"]
