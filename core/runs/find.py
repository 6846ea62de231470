"""Which runs there are, and which one is meant."""

import os

from core.errors import RunError
from core.runs.store import Run
from core.workspace import Workspace


def list_runs(workspace: Workspace) -> list[Run]:
    """All runs, newest first."""
    runs = workspace.runs
    named = sorted((name for name in os.listdir(runs) if not name.startswith(".")), reverse=True)  # noqa: PTH208
    # Of ten thousand a Path each would take most of the time.
    return [Run(runs / name) for name in named if os.path.isfile(f"{runs}/{name}/recipe.yaml")]  # noqa: PTH113


def find_run(workspace: Workspace, wanted: str) -> Run:
    """The run with this id, a unique prefix of it, or `last`. Raises RunError naming what there is."""
    runs = list_runs(workspace)
    if not runs:
        raise RunError("There are no runs yet. Train one first: python launch.py train quickstart")
    if wanted == "last":
        return runs[0]
    found = [run for run in runs if run.id == wanted] or [run for run in runs if run.id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise RunError(f"There is no run {wanted!r}. The newest is {runs[0].id}; `runs` lists all.")
    raise RunError(f"{wanted!r} matches several runs: {', '.join(run.id for run in found[:4])}. Give more of the id.")
