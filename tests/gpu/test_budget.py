"""A budget is enforced and held: nothing that a run asks for on a card goes beyond it, and the plan keeps within it."""

from pathlib import Path

import pytest

from core.memory.estimate import make_plan
from core.recipe import make_recipe
from core.workspace import Workspace
from tests.gpu.checks import SMALL, check_enforced, with_paged_states
from tests.gpu.in_process import events, finished, train
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers with matrices of 256 by 256, and a large vocabulary."""
    folder = tmp_path_factory.mktemp("models") / "wide"
    return tiny_model(folder, hidden_size=256, vocab_size=8192)


@pytest.mark.machine(SMALL)
def test_nothing_goes_beyond_the_budget(wide, rows_file, tmp_path) -> None:
    check_enforced(tmp_path, with_paged_states(wide, rows_file, budget="700MB"))


@pytest.mark.full
def test_a_run_within_the_smallest_budget_that_the_plan_names_needs_no_more(wide, rows_file, tmp_path) -> None:
    workspace = Workspace.open(tmp_path)
    values = with_paged_states(wide, rows_file, **{"train.max_steps": 4})
    smallest = make_plan(make_recipe({**values, "budget": "100MB"}), workspace).smallest_budget_bytes
    run = finished(train(workspace, {**values, "budget": f"{smallest}B"}))
    assert events(run) == "" and "changed" not in run.plan()
    found, predicted = run.result()["peak_bytes"], run.result()["predicted_peak_bytes"]
    assert found["process"] <= predicted["process"] <= smallest
    assert found["reserved"] <= predicted["reserved"]
