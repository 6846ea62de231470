"""The leaderboard: Elo by the paper's protocol, Bradley-Terry beside it, and who wins against whom."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from core.arena.bradley_terry import Strength, bradley_terry
from core.arena.elo import Rating, elo
from core.arena.games import Game


@dataclass(frozen=True)
class ModelPair:
    """What `model` did against `other`; a tie, or both bad, is half a win."""

    model: str
    other: str
    wins: int
    ties: int
    losses: int

    @property
    def games(self) -> int:
        """How often they met."""
        return self.wins + self.ties + self.losses

    @property
    def rate(self) -> float:
        """The share of the points that `model` took, 0 to 1."""
        return (self.wins + self.ties / 2) / self.games


@dataclass(frozen=True)
class Board:
    """What so many votes come to; `orderings` is how many the Elo is the mean of."""

    ratings: list[Rating]
    strengths: dict[str, Strength]
    pairs: dict[tuple[str, str], ModelPair]
    votes: int
    orderings: int


def board(games: Sequence[Game], orderings: int) -> Board:
    """The leaderboard of `games`."""
    strengths = {each.model: each for each in bradley_terry(games)}
    return Board(elo(games, orderings), strengths, pairs(games), len(games), orderings)


def pairs(games: Sequence[Game]) -> dict[tuple[str, str], ModelPair]:
    """Every pair that met, from both sides: (model, other)."""
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for game in games:
        for model, other, score in (
            (game.model_a, game.model_b, game.score),
            (game.model_b, game.model_a, 1.0 - game.score),
        ):
            counts[model, other][{1.0: 0, 0.5: 1, 0.0: 2}[score]] += 1
    return {key: ModelPair(*key, *count) for key, count in counts.items()}
