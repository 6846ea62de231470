"""What the Arena works with: the match on the desk, what the votes come to, and the jobs beside."""

from __future__ import annotations

import time
from dataclasses import dataclass

from app.arena.jobs import ArenaWork
from app.arena.leaderboard import Standing
from app.arena.match import ArenaDesk
from app.chat.conversation import Talk
from core.workspace import Workspace


@dataclass(frozen=True)
class Arena:
    """One workspace's arena. Its voices speak from the chat's own process, so that a base is loaded once for both."""

    desk: ArenaDesk
    standing: Standing
    work: ArenaWork

    @classmethod
    def open(cls, workspace: Workspace, talk: Talk) -> Arena:
        """The arena of a workspace, beside its chat."""

        def in_use() -> None:
            talk.used = time.monotonic()

        desk = ArenaDesk.open(workspace, talk.client, in_use)
        return cls(desk, Standing(desk.votes), ArenaWork(desk))
