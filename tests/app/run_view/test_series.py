"""Curves stay small, follow a growing file, and start again where a resume cuts it back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from app.run_view.series import CHUNK_BYTES, Curves
from app.ui.series import LIMIT, ROOM, Series, Thin, highest, mean, peaks
from core.runs.store import Run


def _append(folder: Path, *rows: dict[str, Any], file: str = "metrics") -> None:
    with (folder / f"{file}.jsonl").open("a") as handle:
        handle.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("thin", [peaks, mean, highest])
@pytest.mark.parametrize("length", [1, 3, LIMIT - ROOM, LIMIT, 4_444, 100_000])
def test_a_long_run_is_drawn_with_a_thousand_points_at_most(thin: Thin, length: int) -> None:
    one_by_one, at_once = Series(thin), Series(thin)
    for step in range(length):
        one_by_one.extend([step], [step % 7])
    at_once.extend(list(map(float, range(length))), [float(step % 7) for step in range(length)])
    points = at_once.all()
    assert points == one_by_one.all()
    assert min(length, LIMIT * 0.49) <= len(points) <= LIMIT
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert points[-1][0] == length - 1  # the newest is always there


def test_the_mean_of_a_stretch_stands_at_its_end() -> None:
    series = Series(mean)
    series.extend([float(step) for step in range(100_000)], [float(step) for step in range(100_000)])
    x, y = series.points[0]
    assert (x, y) == (series.stride - 1, (series.stride - 1) / 2)


@pytest.mark.parametrize("at", [0, 777, 31_000, 99_998, 99_999])
@pytest.mark.parametrize("spike", [50.0, -50.0])
def test_a_spike_of_one_step_stays_in_sight_at_its_step(at: int, spike: float) -> None:
    series = Series()
    for start in range(0, 100_000, 64):
        steps = range(start, min(start + 64, 100_000))
        series.extend([float(step) for step in steps], [spike if step == at else math.sin(step) for step in steps])
    assert (float(at), spike) in series.all()


def test_points_only_grow_at_their_end_until_they_are_thinned_out() -> None:
    series = Series()
    before: list[tuple[float, float]] = []
    generation = 0
    for step in range(5_000):
        series.extend([step], [math.cos(step)])
        if series.generation == generation:
            assert series.points[: len(before)] == before
        before, generation = list(series.points), series.generation
    assert generation == 3  # thinned out at 996, 1,992 and 3,984 points


def test_between_two_points_a_value_is_on_the_line() -> None:
    series = Series()
    series.extend([10.0, 20.0, 40.0], [1.0, 2.0, 6.0])
    assert series.at_each([0.0, 10.0, 15.0, 30.0, 99.0]) == [1.0, 1.0, 1.5, 4.0, 6.0]


def test_a_loss_that_is_no_number_is_a_gap_not_the_end_of_the_page(tmp_path: Path) -> None:
    curves = Curves(Run(tmp_path))
    _append(tmp_path, {"step": 1, "time": 1.0, "loss": 2.0}, {"step": 2, "time": 2.0, "loss": None})
    _append(tmp_path, {"step": 2, "eval_loss": None}, {"step": 3, "time": 3.0, "loss": 1.0})
    curves.update()
    assert [x for x, _ in curves.metrics.loss.all()] == [1.0, 3.0]


def test_memory_keeps_its_peaks_when_it_is_thinned_out() -> None:
    series = Series(highest)
    for second in range(10_000):
        series.extend([second], [999.0 if second == 777 else 1.0])
    assert max(y for _, y in series.all()) == 999.0


def test_only_what_is_new_is_read_and_versions_say_what_changed(tmp_path: Path) -> None:
    curves = Curves(Run(tmp_path))
    _append(tmp_path, {"step": 0, "time": 1.0, "eval_loss": 3.0}, {"step": 1, "time": 2.0, "loss": 2.0})
    curves.update()
    assert curves.metrics.evaluation.all() == [(0.0, 3.0)]
    assert curves.metrics.loss.all() == [(1.0, 2.0)]
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
    assert curves.metrics.loss.all() == []
    with (tmp_path / "metrics.jsonl").open("a") as handle:
        handle.write('ss": 2.5}\n')
    curves.update()
    assert curves.metrics.loss.all() == [(1.0, 2.5)]


def test_a_long_file_is_read_in_several_goes(tmp_path: Path) -> None:
    curves = Curves(Run(tmp_path))
    lines = CHUNK_BYTES // 40
    _append(tmp_path, *({"step": step, "time": float(step), "loss": 1.0 + step % 3} for step in range(1, lines)))
    curves.update(patience_seconds=0)
    assert 0 < curves.share_read < 1 and curves.waiting_bytes > 0
    first = curves.metrics.last["step"]
    while curves.waiting_bytes:
        curves.update(patience_seconds=0)
    assert first < curves.metrics.last["step"] == lines - 1


def test_time_and_tokens_are_counted_over_the_steps(tmp_path: Path) -> None:
    curves = Curves(Run(tmp_path))
    figures = {"tokens": 100, "tokens_per_second": 50.0}
    _append(tmp_path, *({"step": step, "time": 1e9 * step, "loss": 1.0, **figures} for step in range(1, 5)))
    curves.update()
    assert curves.metrics.seconds.all() == [(1.0, 2.0), (2.0, 4.0), (3.0, 6.0), (4.0, 8.0)]
    assert curves.metrics.tokens.all()[-1] == (4.0, 400.0)


def test_damaged_lines_do_not_end_the_page(tmp_path: Path) -> None:
    curves = Curves(Run(tmp_path))
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": "x", "loss": 1}\n{"loss": 2}\n[1]\nrubbish\n{"step": 1, "loss": {}}\n'
    )
    (tmp_path / "memory.jsonl").write_text('{"seconds": null, "process_bytes": 5}\n')
    _append(tmp_path, {"step": 2, "loss": 3.0})
    curves.update()
    assert curves.metrics.loss.all() == [(2.0, 3.0)] and curves.memory == {}


def test_a_resume_that_cuts_the_files_back_draws_the_curve_anew(tmp_path: Path) -> None:
    curves = Curves(Run(tmp_path))
    steps = [{"step": step, "time": float(step), "loss": 1.0} for step in range(1, 11)]
    _append(tmp_path, *steps)
    curves.update()
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps[:5]))
    _append(tmp_path, {"step": 6, "time": 100.0, "loss": 9.0})
    curves.update()
    assert [x for x, _ in curves.metrics.loss.all()] == [1, 2, 3, 4, 5, 6]
    assert curves.metrics.loss.all()[-1] == (6.0, 9.0)


def test_the_pace_is_that_of_the_last_steps(tmp_path: Path) -> None:
    curves = Curves(Run(tmp_path))
    slow = [{"step": step, "time": step * 10.0, "loss": 1.0} for step in range(1, 6)]
    fast = [{"step": step, "time": 50.0 + (step - 5) * 0.5, "loss": 1.0} for step in range(6, 40)]
    _append(tmp_path, *slow, *fast)
    curves.update()
    assert curves.seconds_per_step() == 0.5
