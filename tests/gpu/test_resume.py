"""A run that was stopped on a card goes on bit for bit as if it had not been, whatever its states are kept in."""

from pathlib import Path
from typing import Any

import pytest

from tests.gpu.checks import PAGED, check_resumed, in_one_go
from tests.gpu.in_process import settings
from tests.gpu_standin.machine import AMPERE, TURING, Card, Machine
from tests.tiny import tiny_model

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
    check_resumed(tmp_path, values, in_one_go(tmp_path, values))
    assert (machine.process[0].managed > before) == ("lora.targets" in more)
