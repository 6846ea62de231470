"""Charts say their units, show every curve, and escape what a person wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.run_view.charts import loss_chart, memory_chart
from app.run_view.series import Curves
from app.ui import charts
from app.ui.charts import round_up, ticks, time_ticks
from core.runs.store import Run
from core.sizes import GIB


def _curves(tmp_path: Path, used: float = 0.5 * GIB) -> Curves:
    curves = Curves(Run(tmp_path))
    for step in range(1, 11):
        curves.metrics.add([{"step": step, "time": float(step), "loss": 3.0 / step}])
    curves.metrics.add([{"step": 10, "time": 10.0, "eval_loss": 0.5}])
    for second in range(10):
        curves._add_memory([{"seconds": second, "step": second, "process_bytes": used}])
    return curves


def test_the_loss_chart_has_both_curves_and_the_evaluations_as_points(tmp_path: Path) -> None:
    svg = loss_chart(_curves(tmp_path))
    assert re.findall(r'data-name="([^"]+)"', svg) == ["train", "train, smoothed", "evaluation"]
    assert svg.count("<circle") == 1
    assert "loss (nats per token)" in svg and ">step<" in svg


def test_nothing_is_drawn_before_there_is_something(tmp_path: Path) -> None:
    assert loss_chart(Curves(Run(tmp_path))) == ""
    assert memory_chart(Curves(Run(tmp_path)), "cpu", GIB) == ""
    assert memory_chart(_curves(tmp_path, used=0.0), "cuda", GIB) == "", "a GPU of which nothing is taken yet"


def test_on_a_cpu_memory_is_called_resident(tmp_path: Path) -> None:
    svg = memory_chart(_curves(tmp_path), "cpu", GIB)
    assert "resident memory" in svg
    assert "budget 1 GiB" in svg and "memory (GiB)" in svg
    assert "resident" not in memory_chart(_curves(tmp_path), "cuda", GIB)


def test_a_budget_far_above_the_use_does_not_press_the_curve_flat(tmp_path: Path) -> None:
    svg = memory_chart(_curves(tmp_path, used=0.5 * GIB), "cpu", 100 * GIB)
    assert "budget 100 GiB" in svg and "above the chart" in svg
    top = float(re.findall(r'data-range="[^"]*,([0-9.]+)"', svg)[0])
    assert top < 2.0  # GiB on the axis


def test_while_a_run_goes_on_only_what_is_new_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves, ink = _curves(tmp_path), charts.Ink()
    loss_chart(curves, ink, total=1000)
    drawn: list[int] = []
    points = charts._points
    monkeypatch.setattr(charts, "_points", lambda new, axes: (drawn.append(len(new)), points(new, axes))[1])
    curves.metrics.add([{"step": 11, "time": 11.0, "loss": 0.5}])
    moved = loss_chart(curves, ink, total=1000)  # the axis ends at 12 now, not at 10: all of it is drawn
    assert max(drawn) == 11
    drawn.clear()
    curves.metrics.add([{"step": 12, "time": 12.0, "loss": 0.5}])
    grown = loss_chart(curves, ink, total=1000)
    assert max(drawn) == 1
    assert re.findall("data-range=.*?>", moved)[0] == re.findall("data-range=.*?>", grown)[0]
    assert grown == loss_chart(curves, total=1000)


def test_a_run_that_has_ended_fills_its_chart(tmp_path: Path) -> None:
    curves = _curves(tmp_path)
    assert 'data-range="0.0,10.0,' in loss_chart(curves)
    curves.metrics.add([{"step": 11, "time": 11.0, "loss": 0.5}])
    assert 'data-range="0.0,11.0,' in loss_chart(curves)
    assert 'data-range="0.0,12.0,' in loss_chart(curves, total=400)
    assert 'data-range="0.0,11.0,' in loss_chart(curves, total=11)


@pytest.mark.parametrize("value", [1e-5, 0.99, 1.0, 1.01, 7.2, 1000.0, 1001.0, 987_654.0])
def test_rounding_up_goes_a_third_up_at_most(value: float) -> None:
    assert value * (1 - 1e-9) <= round_up(value) <= value * 1.34


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.31, 4.87), (12.0, 12.5), (0.0, 3_000_000.0)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 12
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)
    assert len({f"{value:g}" for value in found}) == len(found)


@pytest.mark.parametrize("end", [1.0, 59.0, 700.0, 90_000.0, 5_000_000.0])
def test_time_ticks_are_few(end: float) -> None:
    assert 2 <= len(time_ticks(end)) <= 8
