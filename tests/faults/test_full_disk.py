"""A full disk, wherever it is met: the cause is said, the last checkpoint holds, and with room again all goes on."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import RunError
from core.recipe import make_recipe
from core.runs import store
from core.runs.create import create_run
from core.runs.find import list_runs
from core.runs.store import Run
from core.workspace import Workspace
from tests.faults.files import no_space
from tests.faults.outcome import is_the_same, last_checkpoint, losses, said
from tests.faults.place import Place, Warm, at_step, crashes, distinct
from tests.waiting import ended

FREE = "Free some space on the disk of {}, such as by deleting old runs."


def _failed(run: Run, what: str) -> None:
    """The run has ended because of the disk, and says so, and what to do."""
    status = run.status()
    assert status.state == "failed", (status, run.log_tail())
    assert what in status.message
    assert status.message.startswith("The disk is full")
    assert FREE.format(run.workspace) in status.message and "resume the run" in status.message


def test_a_disk_that_is_full_from_a_step_on(place: Place, undisturbed: Run) -> None:
    """It trains on to its end, tells while it does, ends with what is to be done, and goes on from what was saved."""
    run = place.start("full_disk", place="", step=6)
    assert ended(run) == "failed"
    _failed(run, "step 12 could not be saved. The newest checkpoint is that of step 4.")
    assert last_checkpoint(run) == 4
    place.finish(run)
    is_the_same(run, undisturbed)


@pytest.mark.full
@pytest.mark.parametrize(
    ("where", "what", "saved"),
    [
        ("checkpoints", "step 12 could not be saved. The newest checkpoint is that of step 4", 4),
        ("metrics.jsonl", "step 12 could not be saved. The newest checkpoint is that of step 4", 4),
        ("samples.jsonl", "step 12 could not be saved. The newest checkpoint is that of step 4", 4),
        (".adapter.partial", "the adapter could not be saved. The last checkpoint has the progress up to then", 12),
        ("result.json", "The disk is full", 12),
    ],
)
def test_a_disk_that_is_full_for_some_files(place, undisturbed, where: str, what: str, saved: int) -> None:
    run = place.start("full_disk", place=where, step=6)
    assert ended(run) == "failed"
    _failed(run, what)
    assert last_checkpoint(run) == saved
    place.finish(run)
    is_the_same(run, undisturbed)


@pytest.mark.full
@pytest.mark.parametrize("where", ["status.json", "plan.json", "pulse.json"])
def test_a_disk_that_is_full_for_what_is_only_told(place, undisturbed, where: str) -> None:
    run = place.start("full_disk", place=where, step=6)
    assert ended(run) == "finished"
    is_the_same(run, undisturbed)


@pytest.mark.full
def test_a_disk_that_has_room_again_costs_nothing(place, undisturbed) -> None:
    """Lines that waited are written in their places, and the next save is made."""
    run = place.start("full_disk", place="", step=6, until=10)
    assert ended(run) == "finished"
    is_the_same(run, undisturbed)
    assert [each["step"] for each in _training(run)] == list(range(1, 13))
    told = said(run, "warning")
    assert any("step 8 could not be saved" in each and FREE.format(run.workspace) in each for each in told)


def _training(run: Run) -> list[dict[str, float]]:
    return [{"step": row[0]} for row in losses(run) if row[1] is not None]


@pytest.mark.full
def test_no_room_at_calls_of_a_checkpoint(place, undisturbed) -> None:
    """And from then on for nothing else. At every sixth call: each of these runs goes on to its own end."""
    run = place.start("every_call", window="checkpoint", at=3, how="full", numbers=list(range(0, 70, 6)))
    crashed = crashes(place, run)
    for _, each in crashed:
        if each.status().state != "finished":
            _failed(each, "could not be saved")
            assert last_checkpoint(each) in (4, 8)
    for each in distinct(crashed):
        if each.status().state != "finished":
            place.finish(each)
        is_the_same(each, undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no disk may be mounted here; the tests above stand for one")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(file: Path) -> None:
    """Take every byte that is left."""
    with file.open("ab", buffering=0) as handle, contextlib.suppress(OSError):
        while True:
            handle.write(b" " * 1024)


@pytest.mark.full
def test_a_real_disk_that_fills_up(small_disk: Path, warm: Warm, undisturbed: Run) -> None:
    """Another program takes all of it in mid-run; the log is on it too."""
    place = Place(small_disk, warm)
    run = place.start("slowly", seconds=0.3)
    at_step(run, 5)
    ballast = small_disk / "ballast"
    _fill(ballast)
    _fill(run.dir / "worker.log")
    assert ended(run) == "failed", (run.status(), run.log_tail())
    _failed(run, "step 12 could not be saved. The newest checkpoint is that of step 4.")
    with pytest.raises(
        RunError, match="The disk is full: the run could not be created. Free some space on the disk of"
    ):
        create_run(place.workspace, make_recipe({}), {"file": "x", "sha256": "0", "name": "x" * 4096})
    assert [each.id for each in list_runs(place.workspace)] == [run.id]
    ballast.unlink()
    place.finish(run)
    is_the_same(run, undisturbed)


def test_a_run_for_which_there_is_no_room_is_not_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace.open(tmp_path)

    def refuse(path: Path, value: object) -> None:
        raise no_space(str(path))

    monkeypatch.setattr(store, "write_json", refuse)
    with pytest.raises(RunError, match="The disk is full: the run could not be created"):
        create_run(workspace, make_recipe({}), {"file": "x", "sha256": "0", "name": "x"})
    assert list(workspace.runs.iterdir()) == []


def test_a_half_line_that_a_crash_left_does_not_swallow_the_next(tmp_path: Path) -> None:
    run = Run(tmp_path)
    (tmp_path / "events.jsonl").write_bytes(b'{"time": 1, "kind": "a", "message": "wh')
    run.event("resumed", "Resumed from step 4.")
    assert said(run, "resumed") == ["Resumed from step 4."]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_lines_wait_for_room_in_their_order(tmp_path: Path) -> None:
    run, file = Run(tmp_path), tmp_path / "metrics.jsonl"
    run.append("metrics.jsonl", {"step": 1})
    kept = file.rename(tmp_path / "kept")
    file.symlink_to("/dev/full")
    for step in (2, 3):
        run.append("metrics.jsonl", {"step": step})
    assert run.has_lines_waiting()
    file.unlink()
    shutil.move(kept, file)
    run.append("metrics.jsonl", {"step": 4})
    assert not run.has_lines_waiting()
    assert [int(line[9:-1]) for line in file.read_text().splitlines()] == [1, 2, 3, 4]
