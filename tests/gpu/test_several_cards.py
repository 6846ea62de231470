"""Two cards: each process of a run has its own, and together they go the way that one goes."""

from pathlib import Path
from typing import Any

import pytest

from core.launch.submit import submit
from core.recipe import make_recipe
from core.runs.store import Run
from core.runs.supervisor import Supervisor
from core.workspace import Workspace
from tests.gpu.in_process import losses, settings, train
from tests.gpu_standin.machine import AMPERE, Machine
from tests.waiting import ended

TWO = Machine(cards=(AMPERE, AMPERE))


def _together(folder: Path, values: dict[str, Any]) -> Run:
    workspace = Workspace.open(folder)
    run = submit(make_recipe(values), workspace, Supervisor(workspace))
    assert ended(run) == "finished", run.log_tail()
    return run


@pytest.mark.full
@pytest.mark.machine(TWO)
@pytest.mark.parametrize("sharded", [False, pytest.param(True, marks=pytest.mark.full)])
def test_two_cards_go_the_way_of_one(tiny: Path, rows_file: Path, tmp_path: Path, machine: Any, sharded: bool) -> None:
    # at a high rate the steps amplify what bf16 rounds otherwise
    calm = settings(tiny, rows_file, **{"train.learning_rate": 0.001, "train.effective_batch": 8})
    one = train(Workspace.open(tmp_path / "one"), calm)
    assert one.status().state == "finished"
    two = _together(tmp_path / "two", {**calm, "train.devices": 2, "train.sharded": sharded})
    assert losses(two) == pytest.approx(losses(one), rel=2e-3)
    used = {each.card for each in machine.process if each.pid}
    assert used == {0, 1}, "each process has a card of its own"
