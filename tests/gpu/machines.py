"""Marks that give a test its machine, and who else uses it."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.gpu_standin import machine
from tests.gpu_standin.machine import GENERATIONS, VARIABLE, Card, Machine


def on(*cards: Card, **more: Any) -> Any:
    """The mark for a machine with these cards; `more` is of Machine."""
    return pytest.mark.machine(Machine(cards=cards, **more) if cards else Machine(**more))


def on_each(cards: Iterable[Card] = GENERATIONS, soon: Iterable[Card] = GENERATIONS) -> list[Any]:
    """A parameter for each of `cards`, on a machine with it; those that are not of `soon` are for the full test."""
    marks = {card: (on(card),) if card in soon else (on(card), pytest.mark.full) for card in cards}
    return [pytest.param(card, marks=of, id=card.name.removeprefix("NVIDIA GeForce ")) for card, of in marks.items()]


def occupy(mib: int, card: int = 0) -> None:
    """Let another program use `mib` of the card."""
    machine.occupy(Path(os.environ[VARIABLE]), mib, card)
