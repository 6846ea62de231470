"""A card that turns out smaller than planned: another process takes memory in the middle of a run."""

import pytest

from core.runs.manifest import valid_checkpoints
from core.workspace import Workspace
from tests.gpu.checks import alone, check_shortage, leave, together, undisturbed
from tests.gpu.in_process import after_step, in_fp32, train


@pytest.fixture(autouse=True)
def fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    in_fp32(monkeypatch)


def test_a_run_goes_on_with_fewer_conversations_at_once(wide, long_rows, tmp_path) -> None:
    values = together(wide, long_rows)
    run = check_shortage(tmp_path, values, undisturbed(tmp_path, values))
    assert [change["micro_batch"] for change in run.plan()["changed"]][0] == 1


@pytest.mark.full
def test_a_run_goes_on_with_checkpointing_and_dropout_draws_the_same(wide, long_rows, tmp_path) -> None:
    values = alone(wide, long_rows)
    run = check_shortage(tmp_path, values, undisturbed(tmp_path, values))
    assert [change["checkpointing"] for change in run.plan()["changed"]][0] == "half"


def test_a_run_for_which_nothing_is_left_is_saved_and_ends(wide, long_rows, tmp_path, monkeypatch) -> None:
    after_step(monkeypatch, 2, lambda watcher: leave(0))
    run = train(Workspace.open(tmp_path), alone(wide, long_rows))
    assert run.status().state == "failed"
    message = run.status().message
    assert message.startswith("Memory ran out within the budget")
    assert "Progress up to step 2 is saved." in message
    assert [folder.name for folder in valid_checkpoints(run.dir / "checkpoints")][0] == "2"
    assert (run.adapter / "adapter_model.safetensors").exists()
