"""A run that was stopped on a card goes on bit for bit as if it had not been, whatever its states are kept in."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.runs.store import Run
from core.workspace import Workspace
from tests.gpu.in_process import after_step, finished, go_on, losses, settings, stop, train
from tests.gpu_standin.machine import AMPERE, TURING, Card, Machine
from tests.tiny import tiny_model

STEPS, STOPPED_AT = 6, 3
# Each of the adapter's matrices has more numbers than bitsandbytes leaves unpaged.
PAGED = {"lora.rank": 400, "lora.targets": "q_v", "train.learning_rate": 0.001}
RUNS: dict[str, tuple[Card, dict[str, Any]]] = {
    "paged states": (AMPERE, PAGED),
    "paged states in 8 bits": (AMPERE, {**PAGED, "train.optimizer": "paged_adamw_8bit"}),
    "fp16 with its scaler": (TURING, {}),
    "plain AdamW": (AMPERE, {"train.optimizer": "adamw"}),
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer with matrices of 256 by 256."""
    return tiny_model(tmp_path_factory.mktemp("models") / "wide", hidden_size=256, num_hidden_layers=1)


@pytest.mark.parametrize(
    ("card", "more"),
    [
        pytest.param(card, more, id=name, marks=[pytest.mark.machine(Machine(cards=(card,)))])
        for name, (card, more) in RUNS.items()
    ],
)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(card, more, wide, rows_file, tmp_path, machine) -> None:
    values, before = settings(wide, rows_file, **more), machine.process[0].managed
    check_resumed(tmp_path, values, undisturbed(tmp_path, values))
    assert (machine.process[0].managed > before) == ("lora.targets" in more)


def undisturbed(folder: Path, values: dict[str, Any]) -> Run:
    """The run in one go, with dropout and noise."""
    return finished(train(Workspace.open(folder / "whole"), {**values, **_random()}))


def check_resumed(folder: Path, values: dict[str, Any], whole: Run) -> None:
    """The same in two parts has the same losses and the same adapter, bit for bit."""
    workspace = Workspace.open(folder / "in two parts")
    with pytest.MonkeyPatch.context() as patch:
        after_step(patch, STOPPED_AT, stop)
        run = train(workspace, {**values, **_random()})
    assert run.status().step == STOPPED_AT
    finished(go_on(run, workspace))
    assert losses(run) == losses(whole)
    assert len(losses(run)) == STEPS
    ours, theirs = (load_file(each.adapter / "adapter_model.safetensors") for each in (run, whole))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _random() -> dict[str, Any]:
    return {"lora.dropout": 0.2, "train.neftune_alpha": 5, "train.max_steps": STEPS, "data.eval_fraction": 0.0}
