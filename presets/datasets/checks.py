"""Held-out prompts for each sample dataset, with a check of the whole reply. None is a row of its dataset."""

import itertools
from collections.abc import Callable

from presets.datasets import cards, oakhollow, pirate, toyshop
from presets.datasets.build import ROWS, SEED
from presets.starter.example import Example


def _pirate(count: int) -> list[Example]:
    # The stream never repeats a question, so what comes after the rows is not in them.
    return list(itertools.islice(pirate.examples(SEED), ROWS["pirate"], ROWS["pirate"] + count))


def _oakhollow(count: int) -> list[Example]:
    held_out = oakhollow.held_out()
    return held_out[:: max(1, len(held_out) // count)][:count]


def _cards(count: int) -> list[Example]:
    return list(itertools.islice(cards.examples(SEED), ROWS["cards"], ROWS["cards"] + count))


def _toyshop(count: int) -> list[Example]:
    return toyshop.held_out(itertools.islice(toyshop.orders(SEED), ROWS["toyshop"], None), count)


HELD_OUT: dict[str, Callable[[int], list[Example]]] = {
    "pirate": _pirate,
    "oakhollow": _oakhollow,
    "cards": _cards,
    "toyshop": _toyshop,
}
"""For each sample, a function that returns so many held-out examples (Oakhollow has at most 100)."""
