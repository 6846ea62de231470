"""A supervisor that starts no worker: the test is the worker."""

from __future__ import annotations

from core.workspace import Workspace


class QueueOnly:
    """Stands where the supervisor stands, and leaves every run in the queue."""

    def __init__(self, workspace: Workspace | None = None) -> None:
        self.workspace = workspace

    def advance(self) -> None:
        """Start nothing."""
