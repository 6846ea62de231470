"""Deletes a run that has ended, and says beforehand what that frees and loses."""

import contextlib
import os
import shutil
import time
from pathlib import Path

from core.errors import RunError
from core.runs.manifest import named_checkpoints
from core.runs.store import ENDED, Run
from core.sizes import show_bytes
from core.system.file_lock import file_lock
from core.untrusted.paths import is_run_id
from core.workspace import Workspace, move

# A run that is being made takes less than a second.
LEFT_BEHIND_SECONDS = 3600


def size_bytes(folder: Path) -> int:
    """Bytes of the files below `folder`."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).lstat().st_size
            except OSError:
                continue
    return total


def what_is_lost(run: Run) -> str:
    """What deleting `run` frees and takes away, in a sentence: 'It frees 1.2 GB: its adapter, 2 checkpoints and …'."""
    saved = len(named_checkpoints(run.dir / "checkpoints"))
    parts = ["its adapter"] if run.has_adapter else []
    if saved:
        parts.append("1 checkpoint" if saved == 1 else f"{saved} checkpoints")
    listed = f"{', '.join(parts)} and its metrics" if parts else "its metrics"
    return f"This frees {show_bytes(size_bytes(run.dir))} and deletes {listed}."


def is_run(workspace: Workspace, run_id: str) -> bool:
    """Whether this is the ID of an existing run, not another path or a partial folder."""
    return is_run_id(run_id) and (workspace.runs / run_id / "recipe.yaml").is_file()


def remove(workspace: Workspace, run: Run) -> None:
    """Delete `run` of `workspace`. It leaves the list at once, even where a file of it is open elsewhere.

    Takes the lock of starting and resuming: a run that has just been queued again stays. Raises RunError.
    """
    away = run.dir.with_name(f".deleted-{run.id}")
    with file_lock(workspace.state / "start.lock"):
        if not is_run(workspace, run.id) or run.dir.parent != workspace.runs:
            raise RunError(f"The run “{run.name}” was already deleted elsewhere.")
        state = run.status().state
        if state not in ENDED:
            raise RunError(
                f"The run “{run.name}” has not ended; it is {state}. It may have been resumed. Stop it first."
            )
        try:
            move(run.dir, away, seconds=1.0)
        except OSError as error:
            raise RunError(f"The run “{run.name}” cannot be deleted: {error.strerror or error}.") from None
    shutil.rmtree(away, ignore_errors=True)


def clear_away(workspace: Workspace) -> None:
    """Finish interrupted deletions, and remove runs that were never completely made."""
    with file_lock(workspace.state / "start.lock"):
        deleted = list(workspace.runs.glob(".deleted-*"))
        for folder in [*deleted, *workspace.runs.glob(".new-*")]:
            with contextlib.suppress(FileNotFoundError):  # it has just become a run
                if folder in deleted or time.time() - folder.stat().st_mtime > LEFT_BEHIND_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
