"""Curves stay small, follow a growing file, and start again where a resume cuts it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.series import LIMIT, Curves, Series
from core.runs.store import Run


def _append(folder: Path, *rows: dict[str, Any], file: str = "metrics") -> None:
    with (folder / f"{file}.jsonl").open("a") as handle:
        handle.writelines(json.dumps(row) + "\n" for row in rows)


def test_a_long_run_is_drawn_with_a_thousand_points_at_most() -> None:
    series = Series()
    for step in range(100_000):
        series.add(step, step)
    points = series.all()
    assert LIMIT / 2 <= len(points) <= LIMIT
    assert points[-1][0] == 99_999  # the newest is always there
    means = [y for _, y in points[:-1]]
    assert means == sorted(means)
    assert abs(means[0] - (series.stride - 1) / 2) < 1e-9  # the mean of the first `stride` numbers


def test_a_loss_that_is_no_number_is_a_gap_not_the_end_of_the_page(tmp_path: Path) -> None:
    curves = Curves(Run(tmp_path))
    _append(tmp_path, {"step": 1, "time": 1.0, "loss": 2.0}, {"step": 2, "time": 2.0, "loss": None})
    _append(tmp_path, {"step": 2, "eval_loss": None}, {"step": 3, "time": 3.0, "loss": 1.0})
    curves.update()
    assert [x for x, _ in curves.loss.all()] == [1.0, 3.0]


def test_memory_keeps_its_peaks_when_it_is_thinned_out() -> None:
    series = Series(merge=max)
    for second in range(10_000):
        series.add(second, 999.0 if second == 777 else 1.0)
    assert max(y for _, y in series.all()) == 999.0


def test_only_what_is_new_is_read_and_versions_say_what_changed(tmp_path: Path) -> None:
    curves = Curves(Run(tmp_path))
    _append(tmp_path, {"step": 0, "time": 1.0, "eval_loss": 3.0}, {"step": 1, "time": 2.0, "loss": 2.0})
    curves.update()
    assert curves.evaluation.all() == [(0.0, 3.0)]
    assert curves.loss.all() == [(1.0, 2.0)]
    before = dict(curves.versions)
    curves.update()
    assert curves.versions == before
    _append(tmp_path, {"seconds": 0.5, "step": 1, "process_bytes": 100, "allocated_bytes": None}, file="memory")
    curves.update()
    assert curves.versions == {**before, "memory": before["memory"] + 1}
    assert set(curves.memory) == {"process_bytes"}


def test_a_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    curves = Curves(Run(tmp_path))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "time": 1.0, "lo')
    curves.update()
    assert curves.loss.all() == []
    with (tmp_path / "metrics.jsonl").open("a") as handle:
        handle.write('ss": 2.5}\n')
    curves.update()
    assert curves.loss.all() == [(1.0, 2.5)]


def test_a_resume_that_cuts_the_files_back_draws_the_curve_anew(tmp_path: Path) -> None:
    curves = Curves(Run(tmp_path))
    steps = [{"step": step, "time": float(step), "loss": 1.0} for step in range(1, 11)]
    _append(tmp_path, *steps)
    curves.update()
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps[:5]))
    _append(tmp_path, {"step": 6, "time": 100.0, "loss": 9.0})
    curves.update()
    assert [x for x, _ in curves.loss.all()] == [1, 2, 3, 4, 5, 6]
    assert curves.loss.all()[-1] == (6.0, 9.0)


def test_the_pace_is_that_of_the_last_steps(tmp_path: Path) -> None:
    curves = Curves(Run(tmp_path))
    slow = [{"step": step, "time": step * 10.0, "loss": 1.0} for step in range(1, 6)]
    fast = [{"step": step, "time": 50.0 + (step - 5) * 0.5, "loss": 1.0} for step in range(6, 40)]
    _append(tmp_path, *slow, *fast)
    curves.update()
    assert curves.seconds_per_step() == 0.5
