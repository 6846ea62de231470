"""What a vote comes down to for counting: who met whom, and who won."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Winner = Literal["model_a", "model_b", "tie", "both_bad"]
SCORES: dict[str, float] = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5, "both_bad": 0.5}


@dataclass(frozen=True, slots=True)
class Game:
    """One judgement of two different models. Where both are bad, neither is better: it counts as a tie."""

    model_a: str
    model_b: str
    winner: Winner

    @property
    def score(self) -> float:
        """What `model_a` gets of the one point: 1, 0, or half."""
        return SCORES[self.winner]


def counts_of(games: Sequence[Game]) -> Counter[str]:
    """How many games each model played, in the order of their first games."""
    return Counter(name for game in games for name in (game.model_a, game.model_b))
