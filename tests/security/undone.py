"""Takes back what a test does to the served workspace by pressing everything."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from app.main import Server
from core.runs.delete import remove
from core.runs.find import list_runs
from core.runs.store import OPEN


@contextmanager
def undone(server: Server) -> Iterator[None]:
    """Take out of the queue, and away, what is put into the served workspace meanwhile by pressing everything.

    While the queue is kept from starting: once that is lifted, what waits in it would be trained.
    """
    workspace = server.context.workspace
    runs, data = {run.id for run in list_runs(workspace)}, set(workspace.datasets.iterdir())
    yield
    for run in list_runs(workspace):
        if run.id not in runs:
            if run.status().state in OPEN:
                server.context.supervisor.stop(run)
            remove(workspace, run)
    for each in set(workspace.datasets.iterdir()) - data:
        shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
