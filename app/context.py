"""What every tab works with: the workspace, who starts runs, who looks at data, and who speaks for a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.run_view.drawings import RunDrawings
from app.server.downloads import SharedFiles
from app.server.feed import Feed
from core.chat.client import ChatClient
from core.launch.typed_input import typed_chat_model, typed_recipe
from core.preflight.process import Helper
from core.recipe import Recipe, make_recipe
from core.runs.supervisor import Supervisor
from core.system.hardware import device
from core.untrusted.paths import Reach
from core.workspace import Workspace


@dataclass(frozen=True)
class Context:
    """One server's parts. They start no process until they are first used. `reach`: where typed paths may lead."""

    workspace: Workspace
    reach: Reach
    supervisor: Supervisor
    helper: Helper
    chat: ChatClient
    drawings: RunDrawings
    shared_files: SharedFiles
    feed: Feed

    @classmethod
    def open(cls, workspace: Workspace, reach: Reach | None = None) -> Context:
        """The context of one workspace; without `reach` it is that of a person at the machine."""
        return cls(
            workspace=workspace,
            reach=reach or Reach.of(workspace),
            supervisor=Supervisor(workspace),
            helper=Helper(workspace),
            chat=ChatClient(workspace),
            drawings=RunDrawings(device().kind),
            shared_files=SharedFiles(),
            feed=Feed(),
        )

    @property
    def listening(self) -> bool:
        """Whether others reach this server (--listen, --share): then the page may not do what only its owner may."""
        return not self.reach.everywhere

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe of these settings, every path in it allowed. Raises NibbleError."""
        return typed_recipe(self.reach, self.workspace, make_recipe(dict(values)))

    def chat_model(self, key: str) -> str:
        """The key of a model to talk to, any path in it allowed. Raises NibbleError."""
        return typed_chat_model(self.reach, self.workspace, key)

    @property
    def form_file(self) -> Path:
        """Where the settings on the screen are kept: they survive a reload, and a restart on another port."""
        return self.workspace.state / "form.json"
