"""Elo as the paper counts it, what must not change it, and Bradley-Terry beside it."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from core.arena.bradley_terry import LOST_ALL, NEVER_MET, WON_ALL, bradley_terry
from core.arena.elo import START, K, elo, orderings_for
from core.arena.games import Game
from core.arena.leaderboard import board, pairs

NAMES = ["anna", "ben", "carla", "dora", "emil"]


def _games() -> some.SearchStrategy[list[Game]]:
    pair = some.permutations(NAMES).map(lambda names: names[:2])
    winner = some.sampled_from(["model_a", "model_b", "tie", "both_bad"])
    game = some.builds(lambda names, won: Game(names[0], names[1], won), pair, winner)
    return some.lists(game, min_size=1, max_size=40)


def _tournament(strengths: dict[str, float], rounds: int, seed: int = 0) -> list[Game]:
    """Everyone meets everyone so often; who wins is drawn by their strengths."""
    chance, games = random.Random(seed), []
    for _ in range(rounds):
        for a in strengths:
            for b in strengths:
                if a != b:
                    wins = 1 / (1 + 10 ** ((strengths[b] - strengths[a]) / 400))
                    games.append(Game(a, b, "model_a" if chance.random() < wins else "model_b"))
    return games


def _by_name(games: list[Game], **how: int) -> dict[str, float]:
    return {rating.model: rating.elo for rating in elo(games, **how)}


def test_one_game_moves_both_by_half_of_k() -> None:
    first, second = elo([Game("a", "b", "model_a")], orderings=3)
    assert (first.model, first.games, second.model) == ("a", 1, "b")
    assert (first.elo, second.elo) == pytest.approx((START + K / 2, START - K / 2))


def test_an_ordering_is_played_game_by_game() -> None:
    """Two wins by the same one: the second counts less, whatever the order."""
    after_one = START + K / 2
    expected = 1 / (1 + 10 ** ((START - K / 2 - after_one) / 400))
    ratings = _by_name([Game("a", "b", "model_a")] * 2, orderings=2)
    assert ratings["a"] == pytest.approx(after_one + K * (1 - expected))


@settings(max_examples=15, deadline=None)
@given(_games())
def test_ratings_add_up_and_names_and_sides_change_nothing(games: list[Game]) -> None:
    ratings = _by_name(games, orderings=20)
    assert sum(ratings.values()) == pytest.approx(START * len(ratings))
    other_side = {"model_a": "model_b", "model_b": "model_a"}
    turned = [Game(game.model_b, game.model_a, other_side.get(game.winner, game.winner)) for game in games]
    assert _by_name(turned, orderings=20) == pytest.approx(ratings)
    renamed = [Game(f"x {game.model_a}", f"x {game.model_b}", game.winner) for game in games]
    assert _by_name(renamed, orderings=20) == {f"x {name}": rating for name, rating in ratings.items()}
    for rating in elo(games, orderings=20):
        assert rating.low <= rating.elo <= rating.high


def test_the_order_of_the_rows_matters_only_as_chance_does() -> None:
    games = _tournament({"a": 1100, "b": 1000, "c": 900}, rounds=20)
    shuffled = random.Random(5).sample(games, len(games))
    first, second = _by_name(games, orderings=2_000), _by_name(shuffled, orderings=2_000)
    # A single ordering scatters by about 40 points: the mean of 2,000 by about 1.
    assert all(abs(first[name] - second[name]) < 5 for name in first)


def test_the_same_seed_gives_the_same_and_another_nearly_the_same() -> None:
    games = _tournament({"a": 1100, "b": 1000}, rounds=30)
    assert elo(games, 500, seed=3) == elo(games, 500, seed=3) != elo(games, 500, seed=4)


def test_the_interval_holds_what_other_votes_would_have_given(monkeypatch: pytest.MonkeyPatch) -> None:
    strengths = {"a": 1080, "b": 1000, "c": 920}
    given_so = elo(_tournament(strengths, rounds=40), 400)
    monkeypatch.setattr("core.arena.elo.RESAMPLES", 4)  # of the others, only the ratings are looked at
    others = [_by_name(_tournament(strengths, rounds=40, seed=seed), orderings=200) for seed in range(1, 20)]
    for rating in given_so:
        spread = np.std([other[rating.model] for other in others])
        assert (rating.high - rating.low) / 2 == pytest.approx(1.96 * spread, rel=0.5)


def test_the_blocks_that_bound_memory_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    games = _tournament({"a": 1100, "b": 1000, "c": 900}, rounds=5)
    whole = _by_name(games, orderings=100)
    monkeypatch.setattr("core.arena.elo._BLOCK_BYTES", 500)
    assert _by_name(games, orderings=100) == pytest.approx(whole)


def test_no_games_no_ratings() -> None:
    assert elo([]) == [] and bradley_terry([]) == []
    assert board([], 100).ratings == []


def test_very_many_votes_get_fewer_orderings() -> None:
    assert orderings_for(0) == orderings_for(5_000) == 10_000
    assert 100 <= orderings_for(1_000_000) < orderings_for(50_000) < 10_000 == orderings_for(10_000)


def test_bradley_terry_finds_the_strengths_that_made_the_games() -> None:
    found = bradley_terry(_tournament({"a": 1150, "b": 1000, "c": 850}, rounds=200))
    assert [each.model for each in found] == ["a", "b", "c"]
    for each, truth in zip(found, (1150, 1000, 850), strict=True):
        assert each.rating is not None and each.low is not None and each.high is not None
        assert each.rating == pytest.approx(truth, abs=40)
        assert each.low < each.rating < each.high
        assert each.high - each.low < 100


def test_of_two_bradley_terry_is_the_logarithm_of_the_odds() -> None:
    first, second = bradley_terry([Game("a", "b", "model_a")] * 3 + [Game("b", "a", "model_a")])
    assert first.rating is not None and second.rating is not None
    assert first.rating - second.rating == pytest.approx(400 * np.log10(3))


@pytest.mark.parametrize(
    ("games", "why"),
    [
        ([Game("a", "b", "model_a")] * 5, {"a": WON_ALL, "b": LOST_ALL}),
        (
            [Game("a", "b", "tie"), Game("a", "b", "tie"), Game("c", "a", "model_a"), Game("d", "e", "model_a")],
            {"a": "", "b": "", "c": WON_ALL, "d": NEVER_MET, "e": NEVER_MET},
        ),
    ],
)
def test_where_there_is_no_finite_strength_none_is_given(games: list[Game], why: dict[str, str]) -> None:
    found = {each.model: each for each in bradley_terry(games)}
    assert {name: each.why for name, each in found.items()} == why
    assert all((each.rating is None) == bool(each.why) for each in found.values())


def test_pairs_count_both_sides() -> None:
    games = [Game("a", "b", "model_a"), Game("b", "a", "tie"), Game("b", "a", "both_bad"), Game("b", "a", "model_a")]
    found = pairs(games)
    assert (found["a", "b"].wins, found["a", "b"].ties, found["a", "b"].losses) == (1, 2, 1)
    assert found["a", "b"].rate + found["b", "a"].rate == 1.0
