"""Bradley-Terry strengths: the one set of ratings that makes the votes likeliest, whatever their order.

P(a beats b) = 1 / (1 + 10^((b - a) / 400)), so the numbers are on Elo's scale; their mean is 1000, a tie is half a
win. Fitted by Newton's method; the 95 % interval comes from the Hessian. Where a model won or lost everything, or
never met the others, there is no finite answer, and none is given (Hunter 2004, assumption 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.arena.games import Game, counts_of

CENTRE = 1000.0
SCALE = 400.0 / np.log(10.0)
_STEPS, _ENOUGH = 100, 1e-9
WON_ALL = "has not lost to the others, so its rating has no upper bound yet"
LOST_ALL = "has not won against the others, so its rating has no lower bound yet"
NEVER_MET = "is not connected to the others by any games"


@dataclass(frozen=True)
class Strength:
    """One model's strength with its 95 % interval; None where there is no finite one, and `why` says so."""

    model: str
    rating: float | None
    low: float | None
    high: float | None
    why: str = ""


def bradley_terry(games: Sequence[Game]) -> list[Strength]:
    """The strengths, highest first, then those without one.

    Fitted among the largest group of models in which everyone has, directly or by way of others, both taken a point
    from and given a point to everyone else.
    """
    models = list(counts_of(games))
    if not models:
        return []
    points = _points(games, models)
    reach = _reach(points)
    mutual = reach & reach.T
    inside = mutual[int(mutual.sum(axis=1).argmax())]
    if inside.sum() < 2:
        everyone = range(len(models))
        alone = [Strength(models[at], None, None, None, _why(reach, at, np.not_equal(everyone, at))) for at in everyone]
        return sorted(alone, key=lambda each: each.model)
    members = np.flatnonzero(inside)
    ratings, errors = _fit(points[np.ix_(members, members)])
    fitted = [
        Strength(models[index], float(rating), float(rating - 1.96 * error), float(rating + 1.96 * error))
        for index, rating, error in zip(members, ratings, errors, strict=True)
    ]
    outside = [
        Strength(models[at], None, None, None, _why(reach, at, members)) for at in np.flatnonzero(~inside).tolist()
    ]
    return sorted(fitted, key=lambda each: -(each.rating or 0.0)) + outside


def _points(games: Sequence[Game], models: list[str]) -> Any:
    """(models, models): the points that the row took from the column."""
    number = {model: index for index, model in enumerate(models)}
    points = np.zeros((len(models), len(models)))
    for game in games:
        a, b = number[game.model_a], number[game.model_b]
        points[a, b] += game.score
        points[b, a] += 1.0 - game.score
    return points


def _reach(points: Any) -> Any:
    """(models, models): whether the row took a point from the column, directly or by way of others."""
    reach = (points > 0) | np.eye(len(points), dtype=bool)
    for _ in range(max(1, len(points).bit_length())):
        reach = (reach.astype(np.float32) @ reach.astype(np.float32)) > 0
    return reach


def _fit(points: Any) -> tuple[Any, Any]:
    """(ratings, standard errors) by Newton's method with halved steps; the sum of the unknowns is held at zero."""
    played = points + points.T
    taken = points.sum(axis=1)
    size = len(points)
    level = np.ones((size, size)) / size  # makes the Hessian invertible along the one direction that is free
    unknown = np.zeros(size)
    best = _likelihood(points, unknown)
    for _ in range(_STEPS):
        wins = _wins(unknown)
        step = np.linalg.solve(_hessian(played, wins) + level, taken - (played * wins).sum(axis=1))
        step -= step.mean()
        while _likelihood(points, unknown + step) < best - 1e-12 and np.abs(step).max() > _ENOUGH:
            step = step / 2
        unknown = unknown + step
        best = _likelihood(points, unknown)
        if np.abs(step).max() < _ENOUGH:
            break
    inverse = np.linalg.inv(_hessian(played, _wins(unknown)) + level) - level
    return CENTRE + SCALE * unknown, SCALE * np.sqrt(np.clip(np.diag(inverse), 0.0, None))


def _wins(unknown: Any) -> Any:
    """(models, models): the probability that the row beats the column."""
    return 1.0 / (1.0 + np.exp(unknown[None, :] - unknown[:, None]))


def _likelihood(points: Any, unknown: Any) -> float:
    return float(-(points * np.logaddexp(0.0, unknown[None, :] - unknown[:, None])).sum())


def _hessian(played: Any, wins: Any) -> Any:
    weights = played * wins * wins.T
    return np.diag(weights.sum(axis=1)) - weights


def _why(reach: Any, index: int, others: Any) -> str:
    """Why a model has no strength among `others`, none of whom it both took points from and gave points to."""
    above, below = reach[index, others].any(), reach[others, index].any()
    if above and below:
        return "has only beaten some models and only lost to others"
    return WON_ALL if above else LOST_ALL if below else NEVER_MET
