"""What a recipe means for its dataset's report: the model's limits, and the pace of earlier runs."""

from __future__ import annotations

from pathlib import Path

from core.basemodel.find import find_model
from core.preflight.training import pace_of, training_for
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.store import Run
from core.workspace import Workspace, write_json


def _run(workspace: Workspace, model: str, state: str, speed: float) -> Run:
    run = create_run(workspace, make_recipe({"model": model}), {"file": "x", "sha256": "x", "name": "x"})
    run.write_status(state=state)
    write_json(run.dir / "result.json", {"tokens_per_second": speed})
    return run


def test_the_pace_is_that_of_a_finished_run_of_the_same_model(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    assert pace_of(workspace, "starter").tokens_per_second is None
    _run(workspace, "another/model", "finished", 5.0)
    _run(workspace, "starter", "failed", 7.0)
    assert "unknown" in pace_of(workspace, "starter").basis
    _run(workspace, "starter", "finished", 1234.0)
    found = pace_of(workspace, "starter")
    assert found.tokens_per_second == 1234.0
    assert "1,234 tokens/s" in found.basis


def test_what_a_model_says_of_its_end_and_its_length_is_known(tmp_path: Path) -> None:
    recipe = make_recipe({"train.seed": 3, "train.effective_batch": 8, "train.micro_batch": 4})
    found = find_model("starter")
    training = training_for(recipe, Workspace.open(tmp_path), found)
    assert (training.seed, training.effective_batch, training.micro_batch) == (3, 8, 4)
    assert training.longest == found.context_length
    assert training.stops
