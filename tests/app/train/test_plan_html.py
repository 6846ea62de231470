"""A plan is drawn in words and colours that say the same, and what does not fit comes with buttons that mend it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from app.run_view import predicted_html
from app.run_view.charts import memory_chart
from app.run_view.drawings import RunDrawings
from app.run_view.series import Curves
from app.train import plan_html
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.store import Run
from core.sizes import GIB, MIB
from core.workspace import Workspace
from tests.app.data.canned import HOSTILE, memory_plan

MOST = 24 * GIB


def _does_not_fit(**changes: Any) -> dict[str, Any]:
    ways = [
        {"change": "data.max_length=384", "peak_bytes": 5 * GIB, "fits": True},
        {"change": "budget=6144MiB", "peak_bytes": 6 * GIB, "fits": True},
        {"change": "lora.rank=8", "peak_bytes": int(5.8 * GIB), "fits": False},
    ]
    refused = {"fits": False, "chosen": None, "ways": ways, "budget_bytes": 5 * GIB, "smallest_budget_bytes": 6 * GIB}
    return memory_plan(**{**refused, **changes})


def test_what_fits_says_so_with_units_and_time() -> None:
    html = plan_html.plan(memory_plan(), MOST)
    assert "It fits: 6.00 GiB at peak, 2.00 GiB of the budget stays free." in html
    assert ">Fits<" in html and "planning" not in html
    assert "about 4 min" in html and "120 steps of 2.1 s" in html
    assert 'aria-label="6.00 GiB needed of a budget of 8.00 GiB"' in html
    assert "data-change" not in html


def test_without_a_step_count_only_the_step_is_timed() -> None:
    html = plan_html.plan(memory_plan(steps=None), MOST)
    assert "about 2.1 s" in html and "a step" in html


def test_the_bar_is_the_budget_filled_by_category() -> None:
    bar = plan_html.plan(memory_plan(), MOST).split('role="img"')[1]
    widths = [float(width) for width in re.findall(r'style="width:([0-9.]+)%"', bar)]
    assert sum(widths) == pytest.approx(75, abs=0.1)
    assert "Base model: 3.00 GiB" in bar and "Gradients" not in bar.split("</div>")[0]


def test_a_small_fill_is_enlarged_and_an_overfull_bar_is_the_peak() -> None:
    enlarged = plan_html.plan(memory_plan(budget_bytes=20 * GIB), MOST)
    assert 'aria-label="The 6.00 GiB enlarged"' in enlarged
    over = plan_html.plan(_does_not_fit(), MOST)
    assert "enlarged" not in over and 'class="nb-m-over" style="left:83.333%"' in over


def test_choices_are_in_the_screens_words_with_their_reasons() -> None:
    html = plan_html.plan(memory_plan(), MOST)
    assert "<dt>Micro-batch</dt><dd><b>4</b> <span>A larger one would not be faster.</span>" in html
    assert "<dt>Gradient checkpointing</dt><dd><b>every second layer</b>" in html and "takes 16 % more time." in html
    assert "<dt>Packing</dt><dd><b>on</b>" in html


def test_what_does_not_fit_comes_with_the_smallest_budget_and_a_button_for_each_way() -> None:
    html = plan_html.plan(_does_not_fit(), MOST)
    assert "It does not fit: even the most frugal settings take 6.00 GiB, 1.00 GiB more than the budget." in html
    assert "smallest budget" in html
    for change in ("data.max_length=384", "budget=6144MiB", "lora.rank=8"):
        assert f'data-change="{change}"' in html
    assert "Max length of 384 tokens" in html and "Memory budget of 6.00 GiB" in html and "Rank 8" in html
    assert "5.80 GiB, still too much" in html


def test_a_budget_above_the_machine_has_no_button() -> None:
    html = plan_html.plan(_does_not_fit(), 4 * GIB)
    assert 'data-change="budget' not in html and "This machine has 4.00 GiB" in html


def test_what_was_assumed_is_said_without_the_settings_key() -> None:
    html = plan_html.plan(memory_plan(assumed=["data.max_length: each conversation has 512 tokens"]), MOST)
    assert "<li>Each conversation has 512 tokens.</li>" in html


def test_the_last_plan_is_greyed_while_the_next_is_made() -> None:
    html = plan_html.plan(memory_plan(), MOST, planning=True)
    assert "nb-stale" in html and "planning…" in html and "It fits" in html
    assert "Planning" in plan_html.first()


def test_what_comes_from_outside_is_shown_as_text() -> None:
    reasons = [{"setting": HOSTILE, "value": HOSTILE, "because": HOSTILE}]
    hostile = {"reasons": reasons, "assumed": [HOSTILE], "breakdown": {HOSTILE: GIB}}
    ways = [{"change": f"{HOSTILE}={HOSTILE}", "peak_bytes": GIB, "fits": False}]
    drawn = plan_html.plan(memory_plan(**hostile), MOST) + plan_html.plan(_does_not_fit(ways=ways), MOST)
    assert "<script" not in drawn + plan_html.failed(HOSTILE) and "<img" not in drawn


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (4, "a few seconds"),
        (41, "about 40 s"),
        (57, "about 1 min"),
        (250, "about 4 min"),
        (7900, "about 2 h 10 min"),
        (6e6, "about 69 days"),
    ],
)
def test_an_estimate_is_no_more_exact_than_it_is(seconds: float, said: str) -> None:
    assert plan_html.roughly(seconds) == said


def test_small_sizes_keep_a_unit() -> None:
    assert plan_html.size(512) == "512 B" and plan_html.size(8192) == "8 KiB" and plan_html.size(40 * MIB) == "40 MiB"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run that was predicted 5.31 GiB of 8 GiB."""
    workspace = Workspace.open(tmp_path / "workspace")
    made = create_run(workspace, make_recipe({"name": "first"}), {"file": "x", "sha256": "y", "name": "z"})
    plan = {"budget_bytes": 8 * GIB, "peak_bytes": {"process": int(5.31 * GIB)}}
    (made.dir / "plan.json").write_text(str(plan).replace("'", '"'))
    return made


def _finish(run: Run, predicted: float, used: float) -> None:
    peaks = {"peak_bytes": {"process": int(used * GIB)}, "predicted_peak_bytes": {"process": int(predicted * GIB)}}
    (run.dir / "result.json").write_text(str(peaks).replace("'", '"'))
    run.write_status(state="finished", step=5, total=5)


def test_the_chart_draws_predicted_used_and_budget_together(run: Run) -> None:
    run.append("memory.jsonl", {"seconds": 1.0, "step": 1, "process_bytes": 5 * GIB})
    memory = RunDrawings("cuda").parts(run)["memory"]
    for said in ("used by the process", "predicted 5.31 GiB", "budget 8 GiB", "memory (GiB)"):
        assert said in memory
    curves = Curves(run)
    curves.update()
    assert "predicted" not in memory_chart(curves, "cuda", 8 * GIB)


def test_a_run_says_what_was_predicted_and_used(run: Run) -> None:
    _finish(run, 5.31, 5.36)
    assert "predicted 5.31, used 5.36 GiB (+0.9 %)" in RunDrawings("cuda").parts(run)["head"]


def test_the_record_is_over_all_runs_with_the_median_error(run: Run, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    assert "No run measured yet" in predicted_html.record([run])
    _finish(run, 5.31, 5.36)
    second, unmeasured = (
        create_run(workspace, make_recipe({"name": name}), {"file": "x", "sha256": "y", "name": "z"})
        for name in (HOSTILE[:30], "no plan")
    )
    _finish(second, 0.5, 0.45)
    html = predicted_html.record([second, run, unmeasured])
    assert "Median error over 2 runs: <b>5.5 %</b>" in html
    assert html.index("-10.0 %") < html.index("+0.9 %")
    assert "512 MiB" in html and "5.31 GiB" in html and "starter" in html
    assert "no plan" not in html and "<script" not in html
