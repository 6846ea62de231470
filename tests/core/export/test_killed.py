"""A merge that is killed in the middle and started again: the bytes of one that nobody disturbed, and no more work."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.export.shared.destination import partial_of
from core.system.process import child_environment
from core.workspace import ROOT, Workspace
from tests.core.export.made import run_with_adapter

pytestmark = pytest.mark.full
SHARDS = """
import os, signal, sys
from functools import partial
from pathlib import Path
from core.export import pipeline
from core.export.merged import write
from core.export.shared.options import ExportOptions
from core.runs.find import list_runs
from core.workspace import Workspace

folder, out, kill_at = Workspace.open(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
write.write_merged = partial(write.write_merged, shard_bytes=20_000)

def say(line, share):
    if share is not None and share >= kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

pipeline.export(folder, list_runs(folder)[0], ExportOptions("merged", out), say)
"""


def _merge(workspace: Workspace, out: Path, kill_at: float = 2.0) -> int:
    command = [sys.executable, "-c", SHARDS, str(workspace.path), str(out), str(kill_at)]
    return subprocess.run(command, cwd=ROOT, env=child_environment(), check=False).returncode


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_merge_that_was_killed_ends_with_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    """In the middle of a shard, and when all are written and it is about to be proved."""
    workspace, whole = Workspace.open(tmp_path / "workspace"), tmp_path / "whole"
    run_with_adapter(workspace, str(tiny))
    assert _merge(workspace, whole) == 0
    for kill_at in (0.6, 1.0):
        out = tmp_path / f"out-{kill_at}"
        assert _merge(workspace, out, kill_at) == -signal.SIGKILL
        assert not out.exists(), "nothing half-written stands in its place"
        kept = {path.name: path.stat().st_mtime_ns for path in partial_of(out).glob("*.safetensors")}
        assert _merge(workspace, out) == 0
        assert _hashes(out) == _hashes(whole) and len(list(out.glob("*.safetensors"))) > 5
        again = [name for name, written in kept.items() if (out / name).stat().st_mtime_ns != written]
        assert len(kept) > 3 and len(again) <= 1, "at most the shard that was being written is written again"
        assert not partial_of(out).exists()
