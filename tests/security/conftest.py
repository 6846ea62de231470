"""The app as it is served, in this process: on a port of its own, behind its real door, on an empty workspace."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from app.main import Server, Serving, launch
from app.server.guard import Door, Guard
from app.server.instance import choose_port
from app.server.keys import workspace_token
from core.system.addresses import Names
from core.untrusted.paths import Reach
from core.workspace import Workspace
from tests.security.watched_ground import Watch


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


@pytest.fixture(scope="session")
def guard(server: Server) -> Guard:
    """What stands in front of everything that the server serves."""
    found = server.demo.app.middleware_stack
    assert isinstance(found, Guard)
    return found


@pytest.fixture(scope="session")
def watch() -> Watch:
    """One for all: such a hook stays as long as the process."""
    return Watch()
