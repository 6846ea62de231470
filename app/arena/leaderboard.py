"""The leaderboard, counted in a thread when votes have come: no tick waits for it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from app.arena import leaderboard_html
from app.arena.match import unforeseen
from core.arena.elo import orderings_for
from core.arena.judge import Bias, position_bias
from core.arena.leaderboard import Board, board
from core.arena.votes import KINDS, VoteBook, games_of, labels_of

Kinds = tuple[str, ...]
SLOW_SECONDS = 1.0  # from then on it is said that the board is being counted anew


@dataclass
class Standing:
    """What the votes come to. `kinds`: whose count. The last board stays on the screen while the next is counted."""

    votes: VoteBook
    kinds: Kinds = KINDS
    html: str = ""
    bias: Bias | None = None
    counted: tuple[int, Kinds] | None = None
    _counting: threading.Thread | None = None
    _since: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def busy(self) -> bool:
        """Whether it is being counted."""
        return self._counting is not None and self._counting.is_alive()

    def look(self) -> str:
        """The leaderboard as HTML, as it stands; counting anew is begun where there is something new."""
        wanted = (len(self.votes.refresh()), self.kinds)
        with self._lock:
            if wanted != self.counted and not self.busy:
                if not self.html:
                    self.html = leaderboard_html.counting()
                self._counting = threading.Thread(target=self._count, args=wanted, daemon=True)
                self._since = time.monotonic()
                self._counting.start()
            slow = self.busy and time.monotonic() - self._since > SLOW_SECONDS
        return leaderboard_html.renewed(self.html) if slow else self.html

    def _count(self, count: int, kinds: Kinds) -> None:
        try:
            votes = self.votes.refresh()[:count]
            games = games_of(votes, kinds)
            self.bias = position_bias(votes)
            found: Board = board(games, orderings_for(len(games)))
            self.html = leaderboard_html.leaderboard(found, labels_of(votes), self.votes.unreadable, count)
        except Exception as error:  # a thread's last word: else the page would wait in silence
            self.html = leaderboard_html.failed(unforeseen(error))
        self.counted = (count, kinds)
