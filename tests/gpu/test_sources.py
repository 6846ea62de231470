"""What was read in the libraries' sources, on a card that is not there: packed rows, pinned memory, slices, GB10."""

from dataclasses import replace
from typing import Any

import pytest

from core.memory.strategy import Strategy
from core.runs.store import Run
from core.runs.tail import Tail
from core.train import decide, loop
from core.workspace import Workspace
from tests.gpu.in_process import losses, peaks, settings, train
from tests.gpu_standin.machine import AMPERE, TURING, Card, Machine


def _said(run: Run, kind: str) -> str:
    return " ".join(each["message"] for each in Tail(run.dir / "events.jsonl").read() if each["kind"] == kind)


@pytest.fixture
def workspace(tmp_path: Any) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


@pytest.mark.machine(Machine(cards=(AMPERE,)))
def test_packed_rows_by_varlen_learn_what_they_learn_with_a_mask(workspace, tiny, rows_file, tmp_path) -> None:
    run = train(workspace, settings(tiny, rows_file))
    assert "varlen_attn, which needs no mask" in _said(run, "attention")
    assert "attention needs no mask" in _said(run, "plan")
    masked = train(Workspace.open(tmp_path / "other"), settings(tiny, rows_file, **{"train.attention": "sdpa"}))
    assert _said(masked, "attention") == ""
    assert losses(run) == pytest.approx(losses(masked), rel=0.01), "in bf16"
    for each in (run, masked):
        counted, predicted = peaks(each)
        assert counted == pytest.approx(predicted, rel=0.01)


@pytest.mark.machine(Machine(cards=(TURING,)))
def test_a_card_without_it_takes_the_mask_and_says_so(workspace, tiny, rows_file) -> None:
    run = train(workspace, settings(tiny, rows_file))
    assert run.status().state == "finished"
    assert "no varlen_attn for float16 here, so packed conversations need a mask" in _said(run, "attention")


def _offloading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the plan would choose, offload: the tiny model would fit without."""

    def choose(*args: Any, **named: Any) -> Any:
        return replace(decide.choose(*args, **named), strategy=Strategy(4, "full", offload=True))

    monkeypatch.setattr(loop, "choose", choose)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(False, marks=pytest.mark.machine(Machine()), id="pins"),
        pytest.param(True, marks=pytest.mark.machine(Machine(pin_limit=20_000)), id="pins 20 kB"),
    ],
)
def test_a_system_that_pins_no_more_ends_no_run(told: bool, workspace, tiny, rows_file, monkeypatch, tmp_path) -> None:
    plain = train(Workspace.open(tmp_path / "other"), settings(tiny, rows_file))
    _offloading(monkeypatch)
    run = train(workspace, settings(tiny, rows_file))
    assert run.status().state == "finished", run.status().message
    assert ("The system pins no more memory" in _said(run, "warning")) is told
    assert losses(run) == pytest.approx(losses(plain), rel=0.01)


SLICED = Card("NVIDIA A100-SXM4-40GB", (8, 0), 40960, slice_mib=4864)


@pytest.mark.machine(Machine(cards=(SLICED,)))
@pytest.mark.parametrize("visible", [None, "MIG-00000000-0000-0000-0000-000000000000"])
def test_a_slice_of_a_card_is_trained_on(visible, workspace, tiny, rows_file, monkeypatch) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    run = train(workspace, settings(tiny, rows_file))
    assert run.status().state == "finished", run.status().message
    assert SLICED.name in _said(run, "device")
    assert 4 * 2**30 < run.plan()["budget_bytes"] <= SLICED.slice_mib * 2**20, "not the whole card's"
    sample = Tail(run.dir / "memory.jsonl").read()[-1]
    assert sample["temperature_celsius"] == 61 and 0 < sample["device_bytes"] < 4864 * 2**20


@pytest.mark.machine(Machine(cards=(Card("NVIDIA GB10", (12, 1), 100_000),), is_unified=True))
def test_on_a_card_that_shares_the_machines_memory_nothing_is_moved_out_of_it(workspace, tiny, rows_file) -> None:
    run = train(workspace, settings(tiny, rows_file, budget="1.2GB"))
    assert run.status().state == "finished", run.status().message
    assert "NVIDIA GB10" in _said(run, "device")
    chosen = run.plan()["chosen"]
    assert not chosen["activation_offload"] and not chosen["embeddings_in_ram"]
    assert Tail(run.dir / "memory.jsonl").read()[-1]["device_bytes"] > 0, "read from the system"
    assert _said(run, "memory").count("can no longer be read") == 0


def test_a_name_that_hides_the_card_is_said_in_the_run(workspace, tiny, rows_file, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-7")
    run = train(workspace, settings(tiny, rows_file))
    assert run.status().state == "finished", run.status().message
    assert "CUDA_VISIBLE_DEVICES=MIG-7 names none of this machine's NVIDIA cards" in _said(run, "warning")
