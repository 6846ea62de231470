"""How an export is stopped on Windows, where a process cannot be asked to end; checked elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.export import jobs
from core.export.jobs import ExportJob
from core.export.shared.destination import partial_of
from core.system.process import process_started
from core.workspace import write_json
from tests.core.held_open import WINDOWS


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
