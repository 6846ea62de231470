"""What each card of the catalogue can train, read from presets/what_fits.json, which docs/what_fits.py makes.

Imports no torch: everything was traced beforehand.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from core.catalogue.facts import Card, cards
from core.workspace import PRESETS

FILE = PRESETS / "what_fits.json"
# 1.10 / 1.03 of the tensors: core/memory/device.py, CUDA_SLACK and CUDA_SLACK_FIXED.
ON_LINUX = (
    "The figures are for Linux. On Windows and in WSL2, torch's memory blocks cannot grow and training takes up to 7 % "
    "more, so what only just fits here may not fit there."
)


@dataclass(frozen=True)
class TracedModel:
    """A model whose training steps were traced.

    `model_type` is transformers' name of its family. `limit` is the longest context that was asked of it, in tokens:
    its own, or the longest of all. `peaks` gives the process' peak in bytes by the dtype to compute in and the length.
    """

    name: str
    title: str
    model_type: str
    parameters: int
    limit: int
    peaks: Mapping[str, Mapping[int, int]]


@dataclass(frozen=True)
class Fit:
    """A model on a card: the longest traced context that fits, in tokens, and its peak in bytes.

    Where none fits, `longest` is None and the peak is that of the shortest.
    """

    model: TracedModel
    card: Card
    longest: int | None
    peak_bytes: int

    @property
    def is_limit(self) -> bool:
        """Whether it is as far as was traced, so that the card might take more."""
        return self.longest == self.model.limit

    @property
    def dtype(self) -> str:
        """What the card computes this model in."""
        return self.card.computes_in(self.model.model_type)

    @property
    def peaks(self) -> Mapping[int, int]:
        """The process' peak in bytes by the length, in that dtype."""
        return self.model.peaks[self.dtype]


@dataclass(frozen=True)
class WhatFits:
    """The whole table: `made` says when and with what, `left_out` why a model is not in it, by title."""

    made: Mapping[str, Any]
    models: Mapping[str, TracedModel]
    left_out: Mapping[str, str]
    longest: Mapping[str, Mapping[str, int | None]]

    def on_card(self, name: str) -> list[Fit]:
        """Every model on the card of that name, the smallest model first."""
        return [self.fit(model, name) for model in sorted(self.models, key=lambda each: self.models[each].parameters)]

    def of_model(self, name: str) -> list[Fit]:
        """The model of that name on every card, the smallest card first."""
        known = cards()
        return [self.fit(name, card) for card in sorted(self.longest, key=lambda each: known[each].memory_bytes)]

    def fit(self, model: str, card: str) -> Fit:
        """One model on one card, both by name. Raises KeyError where one is not in the table."""
        traced, of_card, longest = self.models[model], cards()[card], self.longest[card][model]
        peaks = traced.peaks[of_card.computes_in(traced.model_type)]
        return Fit(traced, of_card, longest, peaks[longest or min(peaks)])


def longest_within(peaks: Mapping[int, int], memory_bytes: int) -> int | None:
    """The longest context whose peak is within the memory, and every shorter one's too; None where there is none."""
    found = None
    for length in sorted(peaks):
        if peaks[length] > memory_bytes:
            break
        found = length
    return found


def nearest_card(name: str, memory_bytes: int) -> tuple[Card, bool]:
    """The catalogue's card for one that the driver calls `name`, and whether it is that very card.

    Where it is not known, the largest that has no more memory; the smallest of all below that.
    """
    known = cards().values()

    def distance(card: Card) -> int:
        return abs(card.memory_bytes - memory_bytes)

    same = [card for card in known if _words(card.title) == _words(name) and distance(card) <= 0.1 * card.memory_bytes]
    if same:
        return min(same, key=distance), True
    within = [card for card in known if card.memory_bytes <= memory_bytes]
    if within:
        return max(within, key=lambda card: card.memory_bytes), False
    return min(known, key=lambda card: card.memory_bytes), False


# What drivers add to a card's name and the catalogue does not, or the other way round.
_BESIDE = {"nvidia", "gpu", "gb", "pcie", "sxm2", "sxm4", "sxm5", "hbm3", "hbm3e", "nvl", "generation"}


def _words(title: str) -> frozenset[str]:
    words = title.lower().replace("-", " ").split()
    sizes = {word for word in words if word.removesuffix("gb").isdigit() and word.endswith("gb")}
    sizes |= {word for word, unit in zip(words, words[1:], strict=False) if unit == "gb"}
    return frozenset(words) - _BESIDE - sizes


def as_what_fits(found: Mapping[str, Any]) -> WhatFits:
    """The table in the JSON that docs/what_fits.py writes."""
    models = {name: _model(name, values) for name, values in found["models"].items()}
    longest = {name: values["longest"] for name, values in found["cards"].items()}
    return WhatFits(found["made"], models, found["left_out"], longest)


def _model(name: str, values: Mapping[str, Any]) -> TracedModel:
    peaks = {
        dtype: {int(length): int(entry["peak_bytes"]["process"]) for length, entry in entries.items()}
        for dtype, entries in values["traces"].items()
    }
    return TracedModel(name, values["title"], values["model_type"], values["parameters"], values["limit"], peaks)


@cache
def what_fits() -> WhatFits:
    """The shipped table."""
    return as_what_fits(json.loads(FILE.read_text(encoding="utf-8")))
