"""The app as it is served, in this process: on a port of its own, behind its real door, on an empty workspace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.main import Server, Serving, launch
from app.server.guard import Door, Guard
from app.server.instance import choose_port
from app.server.keys import workspace_token
from core.runs.delete import remove
from core.runs.find import list_runs
from core.runs.store import OPEN
from core.system.addresses import Names
from core.untrusted.paths import Reach
from core.workspace import Workspace


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app of a person at the machine, up and running. What it does to the environment is undone."""
    before = dict(os.environ)
    workspace = Workspace.open(tmp_path_factory.mktemp("served"))
    door = Door(Names(choose_port(0)), token=workspace_token(workspace.state))
    running = launch(workspace, Serving(door, Reach.of(workspace)))
    yield running
    running.stop()
    os.environ.clear()
    os.environ.update(before)


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


@pytest.fixture(scope="session")
def guard(server: Server) -> Guard:
    """What stands in front of everything that the server serves."""
    found = server.demo.app.middleware_stack
    assert isinstance(found, Guard)
    return found
