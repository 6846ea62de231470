"""An export in a process of its own: what becomes of it is told, also where it could not even begin."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from core.export import jobs
from core.export.shared.options import ExportOptions
from core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty one."""
    return Workspace.open(tmp_path / "workspace")


def test_an_export_that_cannot_be_started_has_failed_and_says_why(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ExportOptions("merged", tmp_path / "out", part="best")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "nowhere" / "python"))
        job = jobs.start(workspace, "some-run", order)
    said = job.read()
    assert (said["state"], said["run"]) == ("failed", "some-run")
    assert said["message"] == "The export could not be started: No such file or directory."
    assert job.options() == order and job.pid is None
    jobs.stop(job)  # there is nothing to end, and no other process is taken for it
    assert job.read() == said


def test_one_whose_order_cannot_be_done_says_so_in_a_sentence(workspace: Workspace, tmp_path: Path) -> None:
    from core.export.worker import main

    job = jobs.ExportJob(jobs.folder(workspace) / "20260101-000000-abc.json")
    order = {**vars(ExportOptions("adapter", tmp_path / "out")), "out": str(tmp_path / "out")}
    job.write(state="working", message="", share=None, run="gone", order=order, workspace=str(workspace.path))
    assert main(job.file) == 1
    assert job.read()["state"] == "failed" and "There are no runs yet" in job.read()["message"]


def test_only_the_newest_are_remembered(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(jobs.KEPT + 5):
        job = jobs.ExportJob(jobs.folder(workspace) / f"20260101-0000{number:02d}-abc.json")
        job.write(state="done", message=str(number))
        job.file.with_suffix(".log").write_text("")
    monkeypatch.setattr(sys, "executable", os.devnull)
    started = jobs.start(workspace, "some-run", ExportOptions("adapter", tmp_path / "out"))
    known = jobs.jobs(workspace)
    assert known[0] == started and len(known) == jobs.KEPT + 1
    assert len(list(jobs.folder(workspace).glob("*.log"))) == jobs.KEPT + 1


def test_a_file_that_was_damaged_is_a_failure_not_a_crash(workspace: Workspace) -> None:
    job = jobs.ExportJob(jobs.folder(workspace) / "20260101-000000-abc.json")
    job.file.write_text("{")
    assert job.read()["state"] == "failed" and jobs.jobs(workspace) == [job]
