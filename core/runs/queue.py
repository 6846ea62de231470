"""Which runs are open: the active one, and the queued ones in the order in which they will start.

New runs go to the end. Only an order that the user has changed is saved, as IDs in `state/queue.json`; IDs that are no
longer queued are ignored.
"""

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import RunError
from core.runs.store import ACTIVE, ENDED, OPENED, Run
from core.system.file_lock import file_lock
from core.workspace import Workspace, read_json, write_json


class _Look(NamedTuple):
    """The folders of the runs that had not ended, and the newest run, when the folders' times were `times`."""

    times: tuple[int, int]
    not_ended: list[str]
    newest: str | None


# Of each run: which file its status.json was when last read, and the state in it. It is read again when it is another.
_seen: dict[str, tuple[tuple[int, int, int], str]] = {}
_looks: dict[str, _Look] = {}
SETTLED_NANOSECONDS = 1_000_000_000


def order(workspace: Workspace) -> list[Run]:
    """The queued runs, the next one first."""
    waiting = {run.id: run for run in _in_state(workspace, {"queued"})}
    wanted = [run_id for run_id in _written(workspace) if run_id in waiting]
    joined = sorted((run_id for run_id in waiting if run_id not in wanted), key=lambda each: _joined(waiting[each]))
    return [waiting[run_id] for run_id in [*wanted, *joined]]


def at_work(workspace: Workspace) -> Run | None:
    """The active run, whoever started it."""
    return next((run for run in _in_state(workspace, ACTIVE) if run.status().active), None)


def move(workspace: Workspace, run_id: str, places: int) -> None:
    """Move a queued run `places` back in the queue, or forward where that is negative, as far as possible.

    Raises RunError where the run is not queued.
    """
    with file_lock(workspace.state / "start.lock"):
        ids = [run.id for run in order(workspace)]
        if run_id not in ids:
            raise RunError(f"Run {run_id} is not in the queue: it has started or was removed.")
        place = ids.index(run_id)
        ids.insert(max(0, place + places), ids.pop(place))
        write_json(_file(workspace), ids)


def leave(workspace: Workspace, run: Run) -> None:
    """`run` leaves the queue; if queued again, it goes to the end. Call it with the start lock held."""
    written = _written(workspace)
    if run.id in written:
        write_json(_file(workspace), [run_id for run_id in written if run_id != run.id])


def newest(workspace: Workspace) -> Run | None:
    """The run that was made last, in any state."""
    name = _look(workspace).newest
    return None if name is None else Run(workspace.runs / name)


def _in_state(workspace: Workspace, states: set[str] | frozenset[str]) -> list[Run]:
    """The runs whose status.json says one of `states`, the oldest first."""
    runs = [Run(Path(folder)) for folder in _look(workspace).not_ended if _state(folder) in states]
    return [run for run in runs if (run.dir / "recipe.yaml").is_file()]


def _look(workspace: Workspace) -> _Look:
    """Which runs have not ended; looked up again after a run was made, deleted, queued or started."""
    folder, now = str(workspace.runs), time.time_ns()
    times = (os.stat(folder).st_mtime_ns, _changed(workspace.state / OPENED))  # noqa: PTH116 (each second)
    last = _looks.get(folder)
    if last is not None and last.times == times:
        return last
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    paths = [f"{folder}{os.sep}{name}" for name in names]
    look = _Look(times, [path for path in paths if _state(path) not in ENDED], max(names, default=None))
    if now - max(times) > SETTLED_NANOSECONDS:  # else there may be another change within the same tick of its clock
        _looks[folder] = look
    return look


def _changed(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _state(folder: str) -> str:
    """The state in `folder`'s status.json; '' where it cannot be read."""
    try:
        found = os.stat(f"{folder}/status.json")  # noqa: PTH116 (ten thousand of them)
    except OSError:
        return ""
    mark = (found.st_ino, found.st_mtime_ns, found.st_size)
    if folder not in _seen or _seen[folder][0] != mark:
        values: Any = read_json(Path(folder) / "status.json")
        _seen[folder] = mark, str(values.get("state")) if isinstance(values, dict) else ""
    return _seen[folder][1]


def _joined(run: Run) -> tuple[int, str]:
    """When `run` was queued: nothing writes its status meanwhile."""
    return _changed(run.dir / "status.json"), run.id


def _written(workspace: Workspace) -> list[str]:
    written = read_json(_file(workspace))
    return [each for each in written if isinstance(each, str)] if isinstance(written, list) else []


def _file(workspace: Workspace) -> Path:
    return workspace.state / "queue.json"
