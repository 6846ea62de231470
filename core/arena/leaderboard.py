"""The leaderboard: Elo by the paper's protocol, Bradley-Terry beside it, and who wins against whom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.arena.bradley_terry import Strength, bradley_terry
from core.arena.elo import ORDERINGS, Rating, elo
from core.arena.games import Game
from core.arena.win_rates import ModelPair, pairs


@dataclass(frozen=True)
class Board:
    """What so many votes come to; `orderings` is how many the Elo is the mean of."""

    ratings: list[Rating]
    strengths: dict[str, Strength]
    pairs: dict[tuple[str, str], ModelPair]
    votes: int
    orderings: int


def board(
    games: Sequence[Game], orderings: int = ORDERINGS, seed: int = 0, progress: Callable[[float], None] = lambda _: None
) -> Board:
    """The leaderboard of `games`."""
    strengths = {each.model: each for each in bradley_terry(games)}
    return Board(elo(games, orderings, seed, progress), strengths, pairs(games), len(games), orderings)
