"""Exports that the app has started: each a process of its own that outlives the server, and a file that tells of it."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.export.formats.registry import format_named
from core.export.shared.destination import partial_of
from core.export.shared.options import ExportOptions
from core.system.process import apart, as_process, end_tree, is_alive, process_started
from core.workspace import Workspace, read_json, write_json

KEPT = 20
# From a job's file to its process, on a machine that is busy.
STARTING_SECONDS = 15
Values = dict[str, Any]


@dataclass(frozen=True)
class ExportJob:
    """One export. Its file holds what was asked, and what the process has come to."""

    file: Path

    @property
    def id(self) -> str:
        """The file's name; the newest sorts last."""
        return self.file.stem

    def read(self) -> Values:
        """`state` (working, done, failed, stopped), `message`, `share` (0 to 1, or None), `result`, and what was asked.

        A process that is gone without a last word has failed.
        """
        values, process = read_json(self.file), read_json(self.file.with_suffix(".pid")) or {}
        if not isinstance(values, dict) or "state" not in values:
            return {"state": "failed", "message": "The progress of the export can no longer be read.", "share": None}
        may_be_starting = time.time() - self.file.stat().st_mtime < STARTING_SECONDS
        if values["state"] == "working" and not (is_alive(**process) if process else may_be_starting):
            gone = "The export ended unexpectedly: it was killed, ran out of memory, or the machine went down."
            again = " Export again to continue where it stopped." if _resumes(values) else " Export again."
            return {**values, "state": "failed", "message": gone + again}
        return dict(values)

    @property
    def pid(self) -> int | None:
        """The process at work, None where there is none."""
        process = read_json(self.file.with_suffix(".pid")) or {}
        return int(process["pid"]) if process and is_alive(**process) else None

    def write(self, **changes: Any) -> None:
        """Replace what the file says, keeping what is not in `changes`."""
        write_json(self.file, {**(read_json(self.file) or {}), **changes})

    def options(self) -> ExportOptions:
        """What was asked for."""
        asked = self.read()["order"]
        return ExportOptions(**{**asked, "out": Path(asked["out"])})


def _resumes(values: Values) -> bool:
    return format_named(values["order"]["to"]).resumes


def folder(workspace: Workspace) -> Path:
    """Where the files are."""
    path = workspace.state / "exports"
    path.mkdir(exist_ok=True)
    return path


def jobs(workspace: Workspace) -> list[ExportJob]:
    """All that are known, the newest first."""
    return [ExportJob(file) for file in sorted(folder(workspace).glob("*.json"), reverse=True)]


def newest(workspace: Workspace) -> ExportJob | None:
    """The one that was started last, whoever started it; None before there is one."""
    return next(iter(jobs(workspace)), None)


def start(workspace: Workspace, run_id: str, options: ExportOptions) -> ExportJob:
    """Start an export in a process of its own; returns at once."""
    for old in jobs(workspace)[KEPT:]:
        for suffix in (".json", ".pid", ".log"):
            old.file.with_suffix(suffix).unlink(missing_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    job = ExportJob(folder(workspace) / f"{stamp}-{secrets.token_hex(3)}.json")
    asked = {**asdict(options), "out": str(options.out)}
    job.write(state="working", message="Starting…", share=None, run=run_id, order=asked, workspace=str(workspace.path))
    try:
        with job.file.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                **as_process("core.export.worker", str(job.file)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **apart(),
            )
    except OSError as error:
        job.write(state="failed", message=f"The export could not be started: {error.strerror or error}.")
        return job
    # In a file of its own: the other one is the process' from now on.
    write_json(job.file.with_suffix(".pid"), {"pid": process.pid, "started": process_started(process.pid)})
    return job


def stop(job: ExportJob) -> None:
    """End an export that is at work; what a merge has finished is kept for the next one."""
    pid = job.pid
    if pid is None:
        return
    if sys.platform != "win32":
        os.kill(pid, signal.SIGTERM)
        return
    # There a signal is an end at once, and leaves alone what the export has started.
    gone = end_tree(**read_json(job.file.with_suffix(".pid")))
    if not gone or job.read()["state"] == "done":
        return
    if not _resumes(job.read()):
        shutil.rmtree(partial_of(job.options().out), ignore_errors=True)
    tell_stopped(job)


def tell_stopped(job: ExportJob) -> None:
    """Its last word after a stop."""
    left = "Export again to continue from here." if _resumes(job.read()) else "Nothing was kept."
    job.write(state="stopped", message=f"Stopped. {left}", share=None)
