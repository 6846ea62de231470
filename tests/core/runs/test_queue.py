"""The queue has an order that a person can change and that nothing which vanishes can break."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from core.errors import RunError
from core.recipe import make_recipe
from core.runs import queue
from core.runs.create import create_run
from core.runs.queue import at_work, leave, move, newest, order
from core.runs.store import Run
from core.system.process import process_started
from core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def _join(workspace: Workspace, *names: str) -> list[Run]:
    runs = []
    for place, name in enumerate(names):
        run = create_run(workspace, make_recipe({"name": name}), {"file": "x", "sha256": "0", "name": "x"})
        os.utime(run.dir / "status.json", (1000 + place, 1000 + place))
        runs.append(run)
    return runs


def _names(workspace: Workspace) -> str:
    return "".join(run.name for run in order(workspace))


def test_whoever_comes_first_is_first(workspace: Workspace) -> None:
    _join(workspace, "a", "b", "c")
    assert _names(workspace) == "abc"


@pytest.mark.parametrize(
    ("which", "places", "then"),
    [(2, -1, "acbd"), (2, -9, "cabd"), (0, 1, "bacd"), (0, 9, "bcda"), (1, 0, "abcd"), (3, -3, "dabc")],
)
def test_a_run_is_moved_as_far_as_it_goes(workspace: Workspace, which: int, places: int, then: str) -> None:
    runs = _join(workspace, "a", "b", "c", "d")
    move(workspace, runs[which].id, places)
    assert _names(workspace) == then


def test_only_a_run_that_waits_can_be_moved(workspace: Workspace) -> None:
    run, _ = _join(workspace, "a", "b")
    run.write_status(state="stopped")
    with pytest.raises(RunError, match="is not in the queue"):
        move(workspace, run.id, 1)


def test_runs_that_vanish_leave_the_rest_in_order(workspace: Workspace) -> None:
    runs = _join(workspace, "a", "b", "c", "d")
    move(workspace, runs[3].id, -3)
    shutil.rmtree(runs[0].dir)
    runs[1].dir.rename(runs[1].dir.with_name(f".deleted-{runs[1].id}"))
    assert _names(workspace) == "dc"
    _join(workspace, "e")
    assert _names(workspace) == "dce"


@pytest.mark.parametrize("content", ["", "{half", "{}", "[1, null]", '["gone"]'])
def test_a_damaged_order_is_none(workspace: Workspace, content: str) -> None:
    _join(workspace, "a", "b")
    (workspace.state / "queue.json").write_text(content)
    assert _names(workspace) == "ab"


def test_whoever_comes_back_goes_to_the_end(workspace: Workspace) -> None:
    """As a run does that is resumed: it is older than all others, and may once have been moved to the front."""
    runs = _join(workspace, "a", "b", "c")
    move(workspace, runs[0].id, 0)
    runs[0].write_status(state="stopped")
    leave(workspace, runs[0])
    assert _names(workspace) == "bc"
    runs[0].write_status(state="queued")
    assert _names(workspace) == "bca"


def test_the_run_at_work_is_one_whose_worker_lives(workspace: Workspace) -> None:
    gone, here, _ = _join(workspace, "gone", "here", "waits")
    gone.write_status(state="training", pid=os.getpid(), pid_started=1.0)
    assert at_work(workspace) is None
    here.write_status(state="training", pid=os.getpid(), pid_started=process_started(os.getpid()))
    assert at_work(workspace) == here


def test_runs_that_have_ended_are_read_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand runs that have ended must not be read anew each second."""
    runs = _join(workspace, *"abcdefgh")
    for run in runs[1:]:
        run.write_status(state="finished")
    assert _names(workspace) == "a"
    read: list[Path] = []
    plainly = queue.read_json
    monkeypatch.setattr(queue, "read_json", lambda path: read.append(path) or plainly(path))
    assert _names(workspace) == "a" and at_work(workspace) is None
    assert [path.name for path in read] == ["queue.json"]
    runs[5].write_status(state="queued")
    assert _names(workspace) == "af"


def test_what_has_not_changed_is_not_looked_at(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ten thousand runs that have ended, a second's look costs what it costs with ten."""
    runs = _join(workspace, *"abc")
    for run in runs[1:]:
        run.write_status(state="finished")
    opened = workspace.state / "opened"
    opened.touch()
    for quiet in (workspace.runs, opened):
        os.utime(quiet, (2000, 2000))
    assert _names(workspace) == "a"
    monkeypatch.setattr(os, "scandir", lambda folder: pytest.fail("nothing has changed"))
    assert (
        _names(workspace) == "a"
        and at_work(workspace) is None
        and newest(workspace) == max(runs, key=lambda run: run.id)
    )
    runs[0].write_status(state="finished")
    assert _names(workspace) == "", "whoever has not ended is looked at each time"
    monkeypatch.undo()
    runs[1].write_status(state="queued")
    assert _names(workspace) == "b"
    _join(workspace, "d")
    assert _names(workspace) == "db", "by the time that each joined"
    shutil.rmtree(runs[1].dir)
    assert _names(workspace) == "d"
