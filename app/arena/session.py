"""What the server remembers for the Arena: the match, the leaderboard, and the jobs beside."""

from __future__ import annotations

from dataclasses import dataclass

from app.arena.jobs import ArenaJobs
from app.arena.leaderboard import Leaderboard
from app.arena.match import MatchSession
from app.context import Context


@dataclass(frozen=True)
class ArenaSession:
    """One workspace's arena. Its models answer from the chat's own process, so that a base is loaded once for both."""

    matches: MatchSession
    leaderboard: Leaderboard
    jobs: ArenaJobs

    @classmethod
    def open(cls, context: Context) -> ArenaSession:
        """The arena of a workspace."""
        matches = MatchSession.open(context.workspace, context.chat)
        return cls(matches, Leaderboard(matches.votes), ArenaJobs(matches))
