"""What was read in the libraries' sources, on a card that is not there: packed rows, pinned memory."""

from dataclasses import replace
from typing import Any

import pytest

from core.memory.strategy import Strategy
from core.runs.store import Run
from core.runs.tail import Tail
from core.train import decide, loop
from core.workspace import Workspace
from tests.gpu.in_process import losses, settings, train
from tests.gpu_standin.machine import AMPERE, TURING, Machine


def _said(run: Run, kind: str) -> str:
    return " ".join(each["message"] for each in Tail(run.dir / "events.jsonl").read() if each["kind"] == kind)


@pytest.fixture
def workspace(tmp_path: Any) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


@pytest.mark.machine(Machine(cards=(AMPERE,)))
def test_packed_rows_by_varlen_learn_what_they_learn_with_a_mask(workspace, tiny, rows_file, tmp_path) -> None:
    run = train(workspace, settings(tiny, rows_file))
    assert "varlen_attn, which needs no mask" in _said(run, "attention")
    assert "varlen_attn needs no mask" in _said(run, "plan")
    masked = train(Workspace.open(tmp_path / "other"), settings(tiny, rows_file, **{"train.attention": "sdpa"}))
    assert _said(masked, "attention") == ""
    assert losses(run) == pytest.approx(losses(masked), rel=0.01), "in bf16"
    for each in (run, masked):
        counted, predicted = (each.result()[key]["tensors"] for key in ("peak_bytes", "predicted_peak_bytes"))
        assert counted == pytest.approx(predicted, rel=0.01)


@pytest.mark.machine(Machine(cards=(TURING,)))
def test_a_card_without_it_takes_the_mask_as_before(workspace, tiny, rows_file) -> None:
    run = train(workspace, settings(tiny, rows_file))
    assert run.status().state == "finished" and _said(run, "attention") == ""


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
