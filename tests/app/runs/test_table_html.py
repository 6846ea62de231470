"""The table of runs sorts, filters, turns its pages, keeps what is picked, and says which run was best."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from app.runs import table_html as runs_table_html
from app.runs.table_html import MOST_PICKED, PAGE_ROWS, RunsTable, TableView
from core.recipe import make_recipe
from core.runs import index, queue
from core.runs.create import create_run
from core.runs.store import Run
from core.system.process import process_started
from core.workspace import Workspace, write_json

HOSTILE = "<img src=x onerror=alert(1)>\"'&"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


@pytest.fixture(autouse=True)
def _always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_table_html, "FRESH_SECONDS", 0.0)


def _run(workspace: Workspace, name: str, after: float | None = None, state: str = "finished", **figures: Any) -> Run:
    run = create_run(workspace, make_recipe({"name": name}), {"file": "x", "sha256": "y", "name": "z"}, state=state)
    if after is not None:
        write_json(run.dir / "result.json", {"eval_loss_before": 3.0, "eval_loss": after, **figures})
    return run


def _names(workspace: Workspace, asked: TableView) -> list[str]:
    return re.findall(r'class="nb-link"[^>]*>([^<]*)<', RunsTable(workspace).page(asked, "").html)


def test_before_the_first_run_it_says_what_will_be_here(workspace: Workspace) -> None:
    page = RunsTable(workspace).page(TableView(), "")
    assert "No runs yet" in page.html and page.runs == 0


def test_the_best_of_the_runs_that_were_measured_alike_has_a_star_and_says_why(workspace: Workspace) -> None:
    worse, better = _run(workspace, "worse", 0.9), _run(workspace, "better", 0.4)
    rows = RunsTable(workspace).page(TableView(), "").rows
    assert "★" in rows[better.id] and "<b>0.400</b>" in rows[better.id]
    assert "Lowest evaluation loss among runs with the same base model" in rows[better.id]
    assert "★" not in rows[worse.id]


def test_any_column_sorts_and_what_has_no_value_comes_last(workspace: Workspace) -> None:
    for name, after, seconds in (("b", 0.5, 10.0), ("C", 0.1, 30.0), ("a", 0.9, 20.0)):
        _run(workspace, name, after, seconds=seconds)
    _run(workspace, "d", state="failed")
    by_name = TableView().press("sort", "name")
    assert _names(workspace, by_name) == ["a", "b", "C", "d"]
    assert _names(workspace, by_name.press("sort", "name")) == ["d", "C", "b", "a"]
    assert _names(workspace, TableView().press("sort", "eval")) == ["C", "b", "a", "d"]
    assert _names(workspace, TableView().press("sort", "eval").press("sort", "eval")) == ["a", "b", "C", "d"]
    assert _names(workspace, TableView().press("sort", "time")) == ["C", "a", "b", "d"]
    html = RunsTable(workspace).page(by_name, "").html
    assert len(re.findall('aria-sort="ascending"', html)) == 1
    for column in runs_table_html.COLUMNS:
        assert len(_names(workspace, TableView().press("sort", column))) == 4


def test_words_are_found_in_name_model_data_and_tags(workspace: Workspace) -> None:
    run = _run(workspace, "Night shift")
    run.write_labels("Night shift", "", ["good one"])
    _run(workspace, "other", state="failed")
    for words in ("night", "SHIFT night", "good", "starter ONE"):
        assert _names(workspace, TableView(words=words)) == ["Night shift"]
    assert _names(workspace, TableView(state="failed")) == ["other"]
    nothing = RunsTable(workspace).page(TableView(words="night", state="failed"), "").html
    assert "No matching runs" in nothing and "None of 2 runs" in nothing


def test_pages_turn_and_one_too_far_is_the_last(workspace: Workspace) -> None:
    for count in range(PAGE_ROWS + 3):
        _run(workspace, f"run {count}")
    by_name = TableView(sort="name", down=False)
    first, second = _names(workspace, by_name), _names(workspace, by_name.press("page", "2"))
    assert (len(first), len(second)) == (PAGE_ROWS, 3)
    assert not set(first) & set(second)
    assert _names(workspace, by_name.press("page", "99")) == second
    html = RunsTable(workspace).page(by_name.press("page", "2"), "").html
    assert "21–23 of 23 runs" in html and "page 2 of 2" in html


def test_picks_are_kept_and_at_most_so_many(workspace: Workspace) -> None:
    runs = [_run(workspace, f"run {count}") for count in range(3)]
    asked = TableView().press("pick", runs[0].id).press("pick", runs[1].id).press("pick", runs[0].id)
    assert asked.picked == (runs[1].id,)
    rows = RunsTable(workspace).page(asked, "").rows
    assert 'aria-checked="true"' in rows[runs[1].id] and 'aria-checked="false"' in rows[runs[0].id]
    for count in range(20):
        asked = asked.press("pick", str(count))
    assert len(asked.picked) == MOST_PICKED and asked.picked[-1] == "19"


@pytest.mark.parametrize(("act", "value"), [("sort", "nonsense"), ("page", "-1"), ("page", "x"), ("format", "c:")])
def test_a_press_that_means_nothing_changes_nothing(act: str, value: str) -> None:
    assert TableView().press(act, value) == TableView()


def test_names_tags_and_notes_are_shown_and_never_run(workspace: Workspace) -> None:
    run = _run(workspace, "x")
    run.write_labels(HOSTILE, HOSTILE, [HOSTILE])
    html = RunsTable(workspace).page(TableView(words=HOSTILE), run.id).html
    assert "<img" not in html and "&lt;img" in html
    assert "<img" not in RunsTable(workspace).page(TableView(words="<img src=y>"), "").html


def test_a_run_that_may_hang_says_so_in_its_row(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _run(workspace, "night", state="queued")
    run.write_status(state="training", step=3, total=9, pid=os.getpid(), pid_started=process_started(os.getpid()))
    monkeypatch.setattr(runs_table_html, "hanging", lambda run, now: "No step for 5 min; the last one took 2 s.")
    assert "No step for 5 min" in RunsTable(workspace).page(TableView(), "").rows[run.id]


def test_runs_that_wait_say_their_place_in_the_queue(workspace: Workspace) -> None:
    first, second = (_run(workspace, name, state="queued") for name in ("first", "second"))
    queue.move(workspace, second.id, -1)
    rows = RunsTable(workspace).page(TableView(), "").rows
    assert "1 of 2" in rows[second.id] and "2 of 2" in rows[first.id]


def test_two_pages_that_differ_within_rows_only_have_one_layout(workspace: Workspace) -> None:
    run = _run(workspace, "before")
    table = RunsTable(workspace)
    before = table.page(TableView(), "")
    run.write_labels("after", "", [])
    after = table.page(TableView(), "")
    assert before.layout == after.layout and before.rows != after.rows
    assert table.page(TableView(sort="name"), "").layout != after.layout


def test_a_list_of_thousands_draws_one_page(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _run(workspace, "one", 0.5)
    (row,) = index.Index(workspace).rows()
    many = [index.Row(**{**vars(row), "run_id": f"{run.id}-{number}"}) for number in range(10_000)]
    monkeypatch.setattr(index.Index, "rows", lambda self, within_seconds=0.0: many)
    began = time.perf_counter()
    page = RunsTable(workspace).page(TableView(words="one", sort="eval"), "")
    assert len(page.rows) == PAGE_ROWS and "10,000 runs" in page.html
    assert time.perf_counter() - began < 1.0
