"""Rules for Windows that can be checked without one: what is open cannot be moved or removed there, for a moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from core import workspace
from core.export import jobs
from core.export.destination import partial_of
from core.export.jobs import ExportJob
from core.runs import store
from core.runs.store import Run
from core.system import file_lock
from core.system.file_lock import remove_lock, try_lock
from core.system.process import process_started
from core.workspace import move, patiently, read_json, write_json

WINDOWS = SimpleNamespace(platform="win32")


class _Scanner:
    """Keeps a file open for the first few tries."""

    def __init__(self, tries: int) -> None:
        self.left = tries

    def look(self) -> str:
        self.left -= 1
        if self.left >= 0:
            raise PermissionError(13, "in use")
        return "done"


def test_what_a_virus_scanner_holds_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PermissionError):
        patiently(_Scanner(1).look)  # elsewhere a refusal is one
    monkeypatch.setattr(workspace, "sys", WINDOWS)
    assert patiently(_Scanner(3).look) == "done"
    with pytest.raises(PermissionError):
        patiently(_Scanner(1000).look, seconds=0.05)


def test_a_folder_is_moved_once_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "sys", WINDOWS)
    (tmp_path / "fresh").mkdir()
    scanner, rename = _Scanner(3), Path.rename

    def later(path: Path, to: Path) -> Path:
        scanner.look()
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", later)
    move(tmp_path / "fresh", tmp_path / "final")
    assert (tmp_path / "final").is_dir()


@pytest.mark.parametrize(("system", "was_open"), [(WINDOWS, False), (SimpleNamespace(platform="linux"), True)])
def test_a_lock_is_closed_before_its_file_goes_only_where_it_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: SimpleNamespace, was_open: bool
) -> None:
    monkeypatch.setattr(file_lock, "sys", system)
    held, seen, unlink = try_lock(tmp_path / "lock"), [], Path.unlink
    assert held is not None

    def look(path: Path, missing_ok: bool = False) -> None:
        seen.append(held.is_locked)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", look)
    remove_lock(held)
    assert seen == [was_open]
    assert not held.is_locked
    assert not (tmp_path / "lock").exists()


def test_a_lock_whose_file_another_has_opened_is_given_back_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(32, "in use")

    monkeypatch.setattr(file_lock, "sys", WINDOWS)
    monkeypatch.setattr(Path, "unlink", refuse)
    held = try_lock(tmp_path / "lock")
    assert held is not None
    remove_lock(held)
    assert try_lock(tmp_path / "lock") is not None


@pytest.mark.parametrize(("to", "kept"), [("adapter", False), ("merged", True)])
def test_an_export_is_stopped_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, kept: bool
) -> None:
    monkeypatch.setattr(jobs, "sys", WINDOWS)
    job, process = _at_work(tmp_path, to)
    jobs.stop(job)
    assert process.wait(timeout=20) != 0
    assert job.read()["state"] == "stopped"
    assert partial_of(tmp_path / "out").exists() is kept


def test_an_export_that_has_just_been_finished_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "sys", WINDOWS)
    job, process = _at_work(tmp_path, "adapter")
    job.write(state="done")
    jobs.stop(job)
    process.wait(timeout=20)
    assert job.read()["state"] == "done"


def _at_work(folder: Path, to: str) -> tuple[ExportJob, subprocess.Popen[bytes]]:
    job, out = ExportJob(folder / "job.json"), folder / "out"
    job.write(state="working", message="", order={"to": to, "out": str(out)})
    partial_of(out).mkdir()
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    write_json(job.file.with_suffix(".pid"), {"pid": process.pid, "started": process_started(process.pid)})
    return job, process


def test_a_status_that_somebody_looks_at_is_written_with_the_next_and_its_end_in_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, scanner, write = Run(tmp_path), _Scanner(0), store.write_json

    def later(path: Path, value: object) -> None:
        scanner.look()
        write(path, value)

    monkeypatch.setattr(store, "write_json", later)
    run.write_status(state="training", message="Loading.", step=1)
    scanner.left = 1
    with pytest.raises(PermissionError):
        run.write_status(step=2)  # elsewhere a refusal is one
    monkeypatch.setattr(store, "sys", WINDOWS)
    monkeypatch.setattr(workspace, "sys", WINDOWS)
    scanner.left = 10**9
    run.write_status(step=3, message="Planning.")
    assert read_json(tmp_path / "status.json")["step"] == 1
    scanner.left = 0
    run.write_status(step=4)
    assert read_json(tmp_path / "status.json") == {"state": "training", "message": "Planning.", "step": 4}
    scanner.left = 3
    run.write_status(state="finished")
    assert read_json(tmp_path / "status.json")["state"] == "finished"
    scanner.left = 10**9
    with pytest.raises(PermissionError):
        run.write_status(state="preparing")
