"""The leaderboard, counted in a thread when votes have come: no tick waits for it."""

import time
from dataclasses import dataclass

from app.arena import leaderboard_html
from app.ui.background_job import BackgroundJob
from app.ui.html import busy, error_box
from core.arena.elo import orderings_for
from core.arena.judge import Bias, position_bias
from core.arena.leaderboard import board
from core.arena.votes import KINDS, VoteBook, games_of, labels_of

Kinds = tuple[str, ...]
SLOW_SECONDS = 1.0  # from then on it is said that the board is being counted anew


@dataclass
class Leaderboard(BackgroundJob):
    """What the votes come to. `kinds`: whose count. The last result stays on the screen while the next is counted."""

    votes: VoteBook
    kinds: Kinds = KINDS
    bias: Bias | None = None
    counted: tuple[int, Kinds] | None = None
    _since: float = 0.0

    def look(self) -> str:
        """The leaderboard as HTML, as it stands; counting anew is begun where there is something new."""
        wanted = (len(self.votes.refresh()), self.kinds)
        with self._lock:
            if wanted != self.counted and not self.busy:
                self.result, self._since = self.result or busy("Counting the votes…"), time.monotonic()
                self.start(lambda stopping: self._count(*wanted))
            slow = self.busy and time.monotonic() - self._since > SLOW_SECONDS
            return leaderboard_html.renewed(self.result) if slow else self.result

    def ended(self) -> None:
        """Counted, or it could not be."""
        self.result = error_box(self.error) if self.error else self.result

    def _count(self, count: int, kinds: Kinds) -> None:
        self.counted = (count, kinds)
        votes = self.votes.refresh()[:count]
        games = games_of(votes, kinds)
        self.bias = position_bias(votes)
        found = board(games, orderings_for(len(games)))
        self.result = leaderboard_html.leaderboard(found, labels_of(votes), self.votes.unreadable, count)
