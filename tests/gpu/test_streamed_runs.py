"""Runs whose layers are streamed: the resident run's losses and adapter, exactly resumed, planned, saved as ever."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.launch.submit import submit
from core.model.stream.in_ram import InRam
from core.model.stream.stream import stream_layers, stream_of
from core.recipe import make_recipe
from core.runs.store import Run
from core.runs.supervisor import Supervisor
from core.runs.tail import Tail
from core.system.hardware import Device
from core.train import loop
from core.train.adapter_files import write_adapter
from core.workspace import Workspace
from tests.core.model.stream.passes import adapted, plain_steps
from tests.gpu.checks import (
    RANDOM,
    check_predicted,
    check_resumed,
    check_shortage,
    in_one_go,
    together,
    undisturbed,
)
from tests.gpu.in_process import events, finished, in_fp32, losses, peaks, settings, train
from tests.gpu.machines import on
from tests.gpu_standin.machine import AMPERE
from tests.tiny import tiny_model
from tests.waiting import ended

LAYERS = 5
STREAMED = {"train.streamed_layers": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of five layers, with matrices of 128 by 128."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny", hidden_size=128, num_hidden_layers=LAYERS)


def run_of(folder: Path, values: dict[str, Any]) -> Run:
    """A run that is to finish."""
    return finished(train(Workspace.open(folder), values))


def adapter(run: Run) -> dict[str, torch.Tensor]:
    """What it has learned."""
    return load_file(run.adapter / "adapter_model.safetensors")


@pytest.mark.parametrize("bits", [4, pytest.param(8, marks=pytest.mark.full), pytest.param(16, marks=pytest.mark.full)])
def test_a_run_that_streams_learns_the_same(bits, model, rows_file, tmp_path) -> None:
    values = settings(model, rows_file, **RANDOM, **{"quantization.bits": bits, "evaluation.prompts": ["hello"]})
    resident, streamed = run_of(tmp_path / "resident", values), run_of(tmp_path / "streamed", {**values, **STREAMED})
    assert losses(streamed) == losses(resident)
    assert (streamed.dir / "samples.jsonl").read_bytes() == (resident.dir / "samples.jsonl").read_bytes()
    ours, theirs = adapter(streamed), adapter(resident)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "4 of 5 layers (" in events(streamed, "model") and "streamed from CPU memory" in events(streamed, "model")
    assert "streamed" not in events(resident, "model")
    (row, *_) = [row for row in Tail(streamed.dir / "metrics.jsonl").read() if "loss" in row]
    assert row["streamed_bytes_per_second"] > 0 and 0 < row["stream_wait_share"] < 1


def test_a_stopped_run_that_streams_goes_on_as_the_resident_one_would(model, rows_file, tmp_path) -> None:
    values = settings(model, rows_file)
    check_resumed(tmp_path, {**values, **STREAMED}, in_one_go(tmp_path, values))


def test_its_plan_knows_that_all_is_on_the_card_before(rows_file, tmp_path) -> None:
    """With short rows no step takes as much as the whole base did, with one matrix unpacked at worst."""
    folder = tiny_model(tmp_path / "model", hidden_size=512, intermediate_size=1024, num_hidden_layers=6)
    more = {"train.micro_batch": 1, "lora.targets": "q_v", "train.streamed_layers": 6}
    run = run_of(tmp_path, settings(folder, rows_file, **more))
    counted, predicted = peaks(run)
    assert "slots" not in run.plan()["breakdown"]
    assert 0 <= predicted - counted <= 1.01 * 512 * 1024 * 2


def test_memory_that_runs_out_in_mid_step_changes_nothing(wide, long_rows, tmp_path, monkeypatch) -> None:
    in_fp32(monkeypatch)
    values = together(wide, long_rows)
    check_shortage(tmp_path, {**values, **STREAMED}, undisturbed(tmp_path, values))


@pytest.mark.parametrize("bits", [4, pytest.param(8, marks=pytest.mark.full), pytest.param(16, marks=pytest.mark.full)])
def test_its_plan_counts_what_stays_and_the_slots(bits, long_rows, tmp_path) -> None:
    folder = tiny_model(tmp_path / "model", hidden_size=256, num_hidden_layers=LAYERS)
    values = settings(folder, long_rows, **{"quantization.bits": bits, **STREAMED})
    check_predicted(tmp_path, values)
    (run,) = Workspace.open(tmp_path / "workspace").runs.iterdir()
    plan = Run(run).plan()
    assert (plan["chosen"]["streamed_layers"], plan["chosen"]["streamed_from"]) == (4, "ram")
    assert plan["breakdown"]["slots"] > 0
    (reason,) = [each["because"] for each in plan["reasons"] if each["setting"] == "streamed_layers"]
    assert reason.startswith("you set it; of 5 layers so many wait in ordinary memory")


@pytest.mark.full
@on(AMPERE, AMPERE)
def test_each_of_two_cards_streams_its_own(model, rows_file, tmp_path) -> None:
    two = settings(model, rows_file, **{"train.devices": 2, "train.effective_batch": 8})
    runs = []
    for name, more in (("resident", {}), ("streamed", STREAMED)):
        workspace = Workspace.open(tmp_path / name)
        runs.append(submit(make_recipe({**two, **more}), workspace, Supervisor(workspace)))
        assert ended(runs[-1]) == "finished", runs[-1].log_tail()
    resident, streamed = runs
    assert losses(streamed) == losses(resident)


def test_more_layers_than_there_are_are_all_of_them(model, rows_file, tmp_path) -> None:
    run = run_of(tmp_path, settings(model, rows_file, **{"train.streamed_layers": 80, "train.max_steps": 1}))
    assert "5 of 5 layers" in events(run, "model")


def test_saving_reads_no_slot(model, tmp_path) -> None:
    ours = adapted(model, Device("cuda", "RTX 3060", 0, 0))
    stream = stream_layers(ours, lambda _: InRam(torch.device("cuda:0"), pytest.fail))
    stream.settle(4)
    plain_steps(ours, steps=1)
    write_adapter(ours, tmp_path / "sound")
    assert stream._ring is not None
    for slot in stream._ring.slots:
        slot.fill_(255)  # NaN, were it read
    torch.cuda.reset_peak_memory_stats()
    before, moved = torch.cuda.memory_allocated(), stream.bytes_moved
    write_adapter(ours, tmp_path / "poisoned")
    assert torch.cuda.max_memory_allocated() == before and stream.bytes_moved == moved
    names = ("adapter_model.safetensors", "adapter_config.json")
    assert all(
        (tmp_path / "sound" / each).read_bytes() == (tmp_path / "poisoned" / each).read_bytes() for each in names
    )
    stream.close()


def test_nothing_is_held_when_a_run_has_ended(model, rows_file, tmp_path, monkeypatch) -> None:
    made = []
    prepare = loop.prepare
    monkeypatch.setattr(loop, "prepare", lambda *given: made.append(prepare(*given)) or made[0])
    run_of(tmp_path, settings(model, rows_file, **STREAMED, **{"train.max_steps": 1}))
    stream = stream_of(made[0].model)
    assert stream is not None and stream._ring is None
