"""The list of runs is read once, follows every change of a folder, and says which of those measured alike is best."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from core.recipe import make_recipe
from core.runs import index
from core.runs.create import create_run
from core.runs.index import Index, best_of
from core.runs.store import Run
from core.workspace import Workspace, write_json


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def _run(workspace: Workspace, name: str = "first", after: float | None = None, **settings: Any) -> Run:
    recipe = make_recipe({"name": name, **settings})
    run = create_run(workspace, recipe, {"file": "x", "sha256": recipe.data.path, "name": "z"}, state="finished")
    if after is not None:
        write_json(run.dir / "result.json", {"eval_loss_before": 3.0, "eval_loss": after, "seconds": 60})
    return run


def _settle(run: Run) -> None:
    """As if the run had been written an hour ago."""
    os.utime(run.dir, (time.time() - 3600,) * 2)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose files were read, in order."""
    found: list[str] = []
    read = index._read

    def counted(run: Run, stamp: int) -> index.Row | None:
        found.append(run.name)
        return read(run, stamp)

    monkeypatch.setattr(index, "_read", counted)
    return found


def test_a_row_says_what_the_files_say(workspace: Workspace) -> None:
    run = _run(workspace, "night", after=2.0, **{"data.path": "pirate", "lora.rank": 32})
    run.write_labels("night one", "a note", ["good"])
    run.write_status(state="finished", step=40, total=40)
    (row,) = Index(workspace).rows()
    assert (row.name, row.note, row.tags) == ("night one", "a note", ("good",))
    assert (row.model, row.data, row.rank) == ("starter", "pirate", "32")
    assert (row.state, row.step, row.before, row.after, row.seconds) == ("finished", 40, 3.0, 2.0, 60.0)


@pytest.mark.parametrize("path", ["/data/with: colon, and 'quotes'.jsonl", "C:\\my data\\ünï.csv", "x" * 300, "7"])
def test_names_that_yaml_writes_in_its_own_ways_are_read_as_they_are(workspace: Workspace, path: str) -> None:
    run = _run(workspace, **{"data.path": path, "model": path})
    (row,) = Index(workspace).rows()
    assert row.data == Path(run.recipe().data.path).name
    assert row.model == Path(run.recipe().model).name


def test_what_has_not_changed_is_not_read_again(workspace: Workspace, reads: list[str]) -> None:
    runs = [_run(workspace, name) for name in ("one", "two")]
    for run in runs:
        _settle(run)
    found = Index(workspace)
    found.rows()
    assert sorted(reads) == ["one", "two"]
    found.rows()
    assert len(reads) == 2
    runs[0].write_labels("renamed", "", [])
    assert {row.name for row in found.rows()} == {"renamed", "two"}
    assert len(reads) == 3


def test_a_run_that_goes_on_is_read_each_time(workspace: Workspace, reads: list[str]) -> None:
    run = create_run(workspace, make_recipe({"name": "waits"}), {"file": "x", "sha256": "y", "name": "z"})
    _settle(run)
    found = Index(workspace)
    found.rows()
    found.rows()
    assert reads == ["waits", "waits"]


def test_a_folder_that_has_just_changed_is_not_trusted(workspace: Workspace, reads: list[str]) -> None:
    _run(workspace)
    found = Index(workspace)
    found.rows()
    found.rows()
    assert len(reads) == 2


def test_deleted_and_damaged_folders_are_coped_with(workspace: Workspace) -> None:
    whole, damaged, gone = (_run(workspace, name) for name in ("whole", "damaged", "gone"))
    found = Index(workspace)
    assert len(found.rows()) == 3
    for name in ("status.json", "labels.json", "result.json", "recipe.yaml"):
        (damaged.dir / name).write_bytes(b"\x00\xff[")
    shutil.rmtree(gone.dir)
    (workspace.runs / "no run").mkdir()
    (workspace.runs / "a file").write_text("")
    rows = {row.run_id: row for row in found.rows()}
    assert set(rows) == {whole.id, damaged.id}
    assert (rows[damaged.id].state, rows[damaged.id].model) == ("interrupted", "?")


def test_many_rows_are_kept_for_the_next_start(
    workspace: Workspace, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "WORTH_KEEPING", 2)
    runs = [_run(workspace, name, after=1.0) for name in ("one", "two")]
    for run in runs:
        _settle(run)
    first = Index(workspace).rows()
    reads.clear()
    assert Index(workspace).rows() == first
    assert reads == []
    next(workspace.state.glob("runs.json")).write_text('{"columns": 7')
    assert Index(workspace).rows() == first
    assert sorted(reads) == ["one", "two"]


def test_a_file_that_was_edited_in_place_is_seen_once_the_run_is_looked_at(workspace: Workspace) -> None:
    run = _run(workspace)
    _settle(run)
    found = Index(workspace)
    found.rows()
    (run.dir / "labels.json").write_text('{"name": "by hand"}')
    assert found.rows()[0].name == "first"
    found.look_again(run.id)
    assert found.rows()[0].name == "by hand"


def test_a_run_without_a_result_says_what_it_has_come_to(workspace: Workspace) -> None:
    run = _run(workspace)
    run.write_status(state="failed", step=3, total=9)
    run.append("metrics.jsonl", {"step": 0, "eval_loss": 4.0})
    run.append("metrics.jsonl", {"step": 3, "loss": 2.5})
    (row,) = Index(workspace).rows()
    assert (row.loss, row.after) == (2.5, 4.0)


def test_the_best_is_told_among_those_that_were_measured_on_the_same(workspace: Workspace) -> None:
    worse, better = (_run(workspace, name, after, **{"data.path": "a"}) for name, after in (("x", 2.0), ("y", 1.0)))
    _run(workspace, "alone", 0.1, **{"data.path": "b"})
    _run(workspace, "other share", 0.5, **{"data.path": "a", "data.eval_fraction": 0.3})
    _run(workspace, "other seed", 0.4, **{"data.path": "a", "train.seed": 9})
    _run(workspace, "unmeasured", **{"data.path": "a"})
    assert best_of(Index(workspace).rows()) == {better.id}
    write_json(worse.dir / "result.json", {"eval_loss": 2.0, "best": {"step": 5, "eval_loss": 0.9}})
    assert best_of(Index(workspace).rows()) == {worse.id}
