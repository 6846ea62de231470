"""Several runs laid over each other: each told apart without colour, only what differs, results side by side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from app.run_view.series import Curves
from app.runs.compare_html import Compared, compare
from core.runs.index import Index
from core.runs.store import Run
from core.workspace import Workspace
from tests.ended import ended_run

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def _compared(workspace: Workspace, *runs: Run) -> list[Compared]:
    rows = {row.run_id: row for row in Index(workspace).rows()}
    found = []
    for run in runs:
        curves = Curves(run)
        curves.update()
        found.append(Compared(run, rows[run.id], curves))
    return found


def _table(html: str, title: str) -> dict[str, list[str]]:
    """The cells of the table below `title`, by the name of their row, without their marks."""
    part = html.split(f"<h4>{title}</h4>")[1].split("</table>")[0]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', part)
    return {name: [re.sub("<.*?>", "", cell) for cell in re.findall("<td>(.*?)</td>", cells)] for name, cells in rows}


def test_only_the_settings_that_differ_are_shown_as_the_form_calls_them(workspace: Workspace) -> None:
    one = ended_run(workspace, "one", **{"lora.rank": 8, "train.schedule": "cosine"})
    two = ended_run(workspace, "two", **{"lora.rank": 32})
    shown = _table(compare(_compared(workspace, one, two), "step"), "Settings that differ")
    assert shown == {"Rank": ["8", "32"], "LR schedule": ["Cosine decay", "Linear decay"]}


def test_the_same_settings_say_so(workspace: Workspace) -> None:
    same = [ended_run(workspace, name) for name in ("one", "two")]
    assert "None: these runs have the same settings and data." in compare(_compared(workspace, *same), "step")


def test_results_stand_side_by_side_and_the_best_has_a_star(workspace: Workspace) -> None:
    one, two = (ended_run(workspace, name, **{"lora.rank": rank}) for name, rank in (("one", 8), ("two", 128)))
    html = compare(_compared(workspace, one, two), "step")
    shown = _table(html, "Results")
    assert shown["Evaluation loss"] == ["4.000 → 1.000", "4.000 → 0.500 ★"]
    assert shown["Memory predicted"] == ["700 MiB", "700 MiB"] and shown["Memory used"] == ["650 MiB", "650 MiB"]
    assert shown["Speed"] == ["800 tokens/s"] * 2 and shown["Trained on"] == ["48,000 tokens"] * 2
    assert "are not comparable" not in html


def test_runs_that_were_measured_on_different_rows_are_not_ranked(workspace: Workspace) -> None:
    one, two = (ended_run(workspace, name, **{"data.eval_fraction": share}) for name, share in (("a", 0.1), ("b", 0.2)))
    html = compare(_compared(workspace, one, two), "step")
    assert "★" not in html and "are not comparable" in html


@pytest.mark.parametrize(
    ("along", "end", "kind"), [("step", 60.0, "number"), ("seconds", 60.0, "time"), ("tokens", 48_000.0, "tokens")]
)
def test_curves_run_along_steps_time_or_tokens(workspace: Workspace, along: str, end: float, kind: str) -> None:
    runs = [ended_run(workspace, "long"), ended_run(workspace, "short", steps=30)]
    html = compare(_compared(workspace, *runs), along)
    assert f'data-range="0.0,{end},' in html and f'data-kind="{kind}"' in html
    assert re.findall(r'data-name="([^"]+)"', html) == ["long", "short", "long, evaluation", "short, evaluation"]


def test_eight_runs_differ_in_more_than_colour(workspace: Workspace, root: Path) -> None:
    runs = _compared(workspace, *(ended_run(workspace, f"run {number}", steps=5) for number in range(8)))
    html = compare(runs, "step")
    css = (root / "app" / "static" / "nibble.css").read_text(encoding="utf-8")
    dashes = [re.findall(rf"nb-run-{place} {{[^}}]*?(?:dasharray: ([\d ]+))?; }}", css)[0] for place in range(8)]
    assert len(set(dashes)) == 8
    for place in range(8):
        assert f'class="nb-line nb-run-{place}"' in html


def test_a_run_without_figures_or_recipe_does_not_hide_the_others(workspace: Workspace) -> None:
    whole, damaged = ended_run(workspace, "whole"), ended_run(workspace, "damaged")
    for name in ("metrics.jsonl", "result.json", "plan.json", "recipe.yaml"):
        (damaged.dir / name).write_bytes(b"\xff[")
    html = compare(_compared(workspace, whole, damaged), "tokens")
    assert 'data-name="whole"' in html and "cannot be read" in html


def test_names_are_shown_and_never_run(workspace: Workspace) -> None:
    settings: dict[str, Any] = {"evaluation.prompts": [HOSTILE]}
    hostile, other = ended_run(workspace, HOSTILE, **settings), ended_run(workspace, "other")
    html = compare(_compared(workspace, hostile, other), "step")
    assert "<img" not in html and "&lt;img" in html
