"""Elo as QLoRA's paper counts it: start 1000, K 32, the mean of the final ratings over many random orderings.

Source: Dettmers et al. 2023, section 5.3 and table 7. In one ordering the games are played one after the other, and
each moves both ratings by K times what was not expected; so the last games weigh most, which the mean over orderings
takes out. The paper's own interval is that of this mean alone, about ±1 at 10,000 orderings, however few the votes.
Ours says how far the rating could move with other votes of the same kind: the votes are drawn anew with replacement
(the bootstrap), and the orderings' own spread is taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.arena.games import Game, counts_of

START, K, ORDERINGS = 1000.0, 32.0, 10_000
UNIT = 400.0 / np.log(10.0)  # so many points multiply the odds by e
RESAMPLES, ORDERINGS_EACH, FEWEST_EACH = 200, 50, 4
# A leaderboard is to come within seconds, not hours: where votes are very many, so many games are played for each half.
MOST_PLAYED = 100_000_000
WITHIN = 1.96  # standard errors: 95 %
_BLOCK_BYTES = 32 * 2**20
_BLOCK_ROWS = 2_000


@dataclass(frozen=True)
class Rating:
    """One model's Elo with its 95 % interval, and how many games it played."""

    model: str
    elo: float
    low: float
    high: float
    games: int


def elo(
    games: Sequence[Game],
    orderings: int = ORDERINGS,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Rating]:
    """The ratings, highest first; none where there are no games. The same games, orderings and seed give the same.

    `progress` gets the share that is done. Takes about 64 MB whatever the number of games and orderings.
    """
    if not games:
        return []
    table = _Table.of(games)
    rng = np.random.default_rng(seed)
    each = max(FEWEST_EACH, min(ORDERINGS_EACH, MOST_PLAYED // (RESAMPLES * len(games))))
    everything = orderings + RESAMPLES * each
    done, total = 0, np.zeros(len(table.models))
    for block in _orderings(table.kinds, orderings, rng):
        total += table.play(block).sum(axis=0)
        done += len(block)
        progress(done / everything)
    means = total / orderings
    finals = []
    for block in _resamples(table.kinds, each, rng):
        finals.append(table.play(block))
        done += len(block)
        progress(done / everything)
    away = WITHIN * _error(np.concatenate(finals), each)
    counts = counts_of(games)
    ratings = [
        Rating(model, float(mean), float(mean - far), float(mean + far), counts[model])
        for model, mean, far in zip(table.models, means, away, strict=True)
    ]
    return sorted(ratings, key=lambda each: (-each.elo, each.model))


def orderings_for(votes: int) -> int:
    """The paper's 10,000, or as many as are played within seconds where there are very many votes."""
    return max(100, min(ORDERINGS, MOST_PLAYED // max(1, votes)))


@dataclass(frozen=True)
class _Table:
    """The games as numbers: `kinds[i]` says of game i which of the few different games it is."""

    models: list[str]
    kinds: Any  # (games,)
    a: Any  # (different games,): indices into models
    b: Any
    scores: Any  # (different games,): what a gets of the one point

    @classmethod
    def of(cls, games: Sequence[Game]) -> _Table:
        models = list(counts_of(games))
        number = {model: index for index, model in enumerate(models)}
        played = [(number[game.model_a], number[game.model_b], game.score) for game in games]
        different = {game: index for index, game in enumerate(dict.fromkeys(played))}
        small = np.uint16 if len(different) <= 2**16 else np.uint32
        kinds = np.array([different[game] for game in played], dtype=small)
        a, b, scores = (np.array(column) for column in zip(*different, strict=True))
        return cls(models, kinds, a, b, scores)

    def play(self, sequences: Any) -> Any:
        """The final ratings (orderings, models) of games played in the given sequences (orderings, games) of kinds.

        All orderings play their first game at once, then their second, and so on.
        """
        orderings, width = len(sequences), len(self.models)
        ratings = np.full(orderings * width, START / UNIT)
        first: Any = np.arange(orderings) * width
        for kinds in np.ascontiguousarray(sequences.T):
            a, b = self.a.take(kinds) + first, self.b.take(kinds) + first
            of_a: Any = ratings.take(a)
            of_b: Any = ratings.take(b)
            moved = self.scores.take(kinds) - 1.0 / (1.0 + np.exp(of_b - of_a))
            moved *= K / UNIT
            ratings[a] = of_a + moved
            ratings[b] = of_b - moved
        return ratings.reshape(orderings, width) * UNIT


def _rows_at_once(kinds: Any) -> int:
    return int(max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // max(1, kinds.nbytes))))


def _orderings(kinds: Any, orderings: int, rng: np.random.Generator) -> Iterator[Any]:
    """Blocks of random orderings of the games. How they are cut into blocks changes nothing in them."""
    at_once = _rows_at_once(kinds)
    for start in range(0, orderings, at_once):
        rows = min(at_once, orderings - start)
        yield rng.permuted(np.broadcast_to(kinds, (rows, len(kinds))), axis=1)


def _resamples(kinds: Any, each: int, rng: np.random.Generator) -> Iterator[Any]:
    """RESAMPLES draws of as many games with replacement, in `each` orderings every one, a draw at a time or more."""
    at_once = max(1, _rows_at_once(kinds) // each)
    for start in range(0, RESAMPLES, at_once):
        draws = min(at_once, RESAMPLES - start)
        drawn = kinds[rng.integers(0, len(kinds), (draws, len(kinds)))]
        yield rng.permuted(drawn.repeat(each, axis=0), axis=1)


def _error(finals: Any, each: int) -> Any:
    """The standard error of each model's mean rating, from (RESAMPLES * each, models) final ratings.

    The draws' means scatter by the votes and by the few orderings of each; what the orderings do is known from
    within the draws, and is taken out.
    """
    by_draw = finals.reshape(RESAMPLES, each, -1)
    by_orderings = by_draw.var(axis=1, ddof=1).mean(axis=0) / each
    together = by_draw.mean(axis=1).var(axis=0, ddof=1)
    return np.sqrt(np.clip(together - by_orderings, 0.0, None))
