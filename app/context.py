"""What every tab works with: the workspace, who starts runs, who looks at data, and who chats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.arena.session import Arena
from app.chat.compare import SideBySide
from app.chat.conversation import ChatConversation
from app.chat.serving import ServingSession
from app.data.session import DataSession
from app.export.llama_cpp_install import LlamaCppInstall
from app.export.upload_session import UploadSession
from app.run_view.drawings import Live
from app.server.downloads import SharedFiles
from app.server.feed import Feed
from app.train.download import DownloadSession
from app.train.plan_session import PlanSession
from core.chat.client import ChatClient
from core.launch.typed_input import typed_chat_model, typed_recipe
from core.preflight.process import Helper
from core.recipe import Recipe, make_recipe
from core.runs.supervisor import Supervisor
from core.system.hardware import Device, device
from core.untrusted.paths import Reach
from core.workspace import Workspace


@dataclass(frozen=True)
class Context:
    """One server's parts. They start no process until they are first used. `reach`: where typed paths may lead."""

    workspace: Workspace
    reach: Reach
    supervisor: Supervisor
    helper: Helper
    talk: ChatConversation
    sides: SideBySide
    serving: ServingSession
    arena: Arena
    live: Live
    data: DataSession
    plans: PlanSession
    downloads: DownloadSession
    shelf: SharedFiles
    pushes: UploadSession
    llama_cpp: LlamaCppInstall
    feed: Feed

    @classmethod
    def open(cls, workspace: Workspace, reach: Reach | None = None) -> Context:
        """The context of one workspace; without `reach` it is that of a person at the machine."""
        helper, found = Helper(workspace), device()
        data = DataSession(helper.call)
        talk = ChatConversation.open(workspace, ChatClient(workspace))
        return cls(
            workspace=workspace,
            reach=reach or Reach.of(workspace),
            supervisor=Supervisor(workspace),
            helper=helper,
            talk=talk,
            sides=SideBySide.open(workspace, talk.client),
            serving=ServingSession(workspace, talk.client),
            arena=Arena.open(workspace, talk),
            live=Live(found.kind),
            data=data,
            plans=PlanSession(data.beside, found.total_bytes),
            downloads=DownloadSession(),
            shelf=SharedFiles(),
            pushes=UploadSession(),
            llama_cpp=LlamaCppInstall(),
            feed=Feed(),
        )

    @property
    def listening(self) -> bool:
        """Whether others reach this server (--listen, --share): then the page may not do what only its owner may."""
        return not self.reach.everywhere

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe of these settings, every path in it allowed. Raises NibbleError."""
        return typed_recipe(self.reach, self.workspace, make_recipe(dict(values)))

    def voice(self, key: str) -> str:
        """The key of somebody to talk to, any path in it allowed. Raises NibbleError."""
        return typed_chat_model(self.reach, self.workspace, key)

    @property
    def form_file(self) -> Path:
        """Where the settings on the screen are kept: they survive a reload, and a restart on another port."""
        return self.workspace.state / "form.json"


def device_line(found: Device) -> str:
    """The device as the strip at the top says it: its name, what it has, what is free."""
    total, free = found.total_bytes / 2**30, found.free_bytes / 2**30
    return f"{found.name} · {total:.0f} GiB, {free:.1f} GiB free"
