"""What a card can do is found out before a run needs it: dtypes, managed memory, and how bitsandbytes ends."""

from __future__ import annotations

import json
import math
import subprocess
import time
from pathlib import Path

import pytest

from core.launch.submit import submit
from core.recipe import make_recipe
from core.runs.store import Run
from core.runs.supervisor import Supervisor
from core.runs.tail import Tail
from core.system.doctor import doctor
from core.system.hardware import device
from core.system.managed_memory import pages_states, try_managed_memory
from core.system.measured_card import keep, measured
from core.system.process import as_process
from core.workspace import Workspace
from tests.core.queue_only import QueueOnly
from tests.gpu.in_process import losses, peaks, settings, train
from tests.gpu_standin.machine import PASCAL, TURING, Card, Machine
from tests.tiny import tiny_model

NO_TENSOR_CORES = Card("NVIDIA GeForce GTX 1660 SUPER", (7, 5), 6144)
VIRTUAL = Machine(cards=(Card("NVIDIA A10-8Q", (8, 6), 8192),), managed_memory=False)
VIRTUAL_T4 = Machine(cards=(Card("GRID T4-8Q", (7, 5), 8192),), managed_memory=False)
# Adapters of more than 100,000 numbers, whose states a paged optimizer would page.
LARGE_STATES = {
    **settings(Path("starter"), Path("rows.jsonl")),
    "lora.rank": 512,
    "train.max_steps": 1,
    "train.micro_batch": 4,
    "train.gradient_checkpointing": "off",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


def _said(run: Run, kind: str) -> list[str]:
    return [event["message"] for event in Tail(run.dir / "events.jsonl").read() if event["kind"] == kind]


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [
        pytest.param("llama", "float16", marks=pytest.mark.machine(Machine(cards=(TURING,)))),
        pytest.param("gemma3_text", "float32", marks=pytest.mark.machine(Machine(cards=(TURING,)))),
        pytest.param("llama", "float32", marks=pytest.mark.machine(Machine(cards=(NO_TENSOR_CORES,)))),
        pytest.param("llama", "float32", marks=pytest.mark.machine(Machine(cards=(PASCAL,)))),
    ],
)
def test_a_run_computes_in_what_suits_card_and_model_and_takes_what_was_planned(
    architecture: str, dtype: str, workspace: Workspace, rows_file: Path, tmp_path: Path
) -> None:
    run = train(workspace, settings(tiny_model(tmp_path / "base", architecture), rows_file))
    assert run.status().state == "finished", run.status().message
    assert f"Computing in {dtype}" in _said(run, "device")[0]
    assert all(math.isfinite(loss) for loss in losses(run))
    assert bool([each for each in _said(run, "plan") if "compute_dtype: float32" in each]) == (dtype == "float32")
    counted, predicted = peaks(run)
    assert counted == pytest.approx(predicted, rel=0.01)


@pytest.mark.full
@pytest.mark.machine(VIRTUAL)
def test_a_card_without_managed_memory_is_found_before_a_run_whose_states_then_stay_on_it(
    workspace: Workspace, rows_file: Path, machine
) -> None:
    assert "managed_memory" not in measured(device())
    run = train(workspace, {**LARGE_STATES, "data.path": str(rows_file)})
    assert run.status().state == "finished", run.status().message
    assert measured(device())["managed_memory"] is False
    assert [each for each in _said(run, "plan") if each.startswith("paging: off, because CUDA refuses managed memory")]
    assert sum(each.managed for each in machine.process) == 0
    counted, predicted = peaks(run)
    assert counted == pytest.approx(predicted, rel=0.01)


def test_a_card_with_managed_memory_is_found_to_have_it() -> None:
    assert try_managed_memory(device()) is True
    assert pages_states(device())


@pytest.mark.full
@pytest.mark.machine(VIRTUAL)
def test_a_run_that_bitsandbytes_ends_is_called_that(workspace: Workspace, rows_file: Path) -> None:
    keep(device(), managed_memory=True)  # as if it had worked when it was tried
    run = submit(make_recipe({**LARGE_STATES, "data.path": str(rows_file)}), workspace, QueueOnly())
    supervisor = Supervisor(workspace)
    supervisor.start_worker(run)
    deadline = time.monotonic() + 120
    while run.status().active and time.monotonic() < deadline:
        supervisor.advance()
        time.sleep(0.2)
    assert run.status().state == "interrupted"
    assert "bitsandbytes ended the worker at an error of CUDA" in run.status().message, run.log_tail()
    assert "operation not supported" in run.status().message


@pytest.mark.machine(VIRTUAL_T4)
def test_doctor_says_so_and_measures_the_rates(workspace: Workspace) -> None:
    found = doctor(workspace)
    assert found["problems"] == []
    assert found["constants"]["managed_memory"] is False and "no managed memory" in found["notes"][0]
    rates = found["constants"]["rates"]
    assert set(rates) == {"float16", "float32"} and min(rates.values()) > 0
    assert "were measured on this card" in found["because"]


@pytest.mark.full
@pytest.mark.machine(Machine(cards=(TURING,)))
def test_a_plan_for_this_machine_says_what_gemma_computes_in(workspace: Workspace, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", "gemma3_text")
    arguments = ["plan", "modern", "--set", f"model={base}", "--data-dir", str(workspace.path), "--json"]
    done = subprocess.run(**as_process("core.cli", *arguments), capture_output=True, text=True)
    reasons = json.loads(done.stdout)["reasons"]
    assert [each["value"] for each in reasons if each["setting"] == "compute_dtype"] == ["float32"], done.stderr
