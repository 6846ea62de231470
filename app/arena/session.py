"""What the Arena works with: the match on the desk, what the votes come to, and the jobs beside."""

from __future__ import annotations

import time
from dataclasses import dataclass

from app.arena.jobs import ArenaJobs
from app.arena.leaderboard import Standing
from app.arena.match import MatchSession
from app.chat.conversation import ChatConversation
from core.workspace import Workspace


@dataclass(frozen=True)
class Arena:
    """One workspace's arena. Its voices speak from the chat's own process, so that a base is loaded once for both."""

    desk: MatchSession
    standing: Standing
    work: ArenaJobs

    @classmethod
    def open(cls, workspace: Workspace, talk: ChatConversation) -> Arena:
        """The arena of a workspace, beside its chat."""

        def in_use() -> None:
            talk.used = time.monotonic()

        desk = MatchSession.open(workspace, talk.client, in_use)
        return cls(desk, Standing(desk.votes), ArenaJobs(desk))
