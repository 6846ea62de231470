"""The budget's autopilot: of all ways to run the same training, the fastest that fits, with a reason for each choice.

What changes the result (length, rank, effective batch) is never touched; what would make it fit is offered. Ways are
tried from the fastest on, so a bigger budget never gives a slower plan, and a smaller one never a bigger peak.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from core.memory.problem import Peak, PlanningProblem, with_settings
from core.memory.reasons import reasons_for
from core.memory.strategy import Strategy, most_frugal, share_of
from core.recipe import Recipe
from core.sizes import show_size
from core.step.optimizer import OPTIMIZERS

# A shorter length limit is offered in these parts of the present one.
LENGTH_PARTS = 8


@dataclass(frozen=True)
class Plan:
    """What was chosen, and why; `way` is None where nothing fits, and `peak` is then that of the most frugal way."""

    way: Strategy | None
    peak: Peak
    budget_bytes: int
    read_as: str
    seconds_per_step: float
    accumulation: int
    reasons: list[dict[str, Any]]
    assumed: list[str]
    smallest_budget_bytes: int
    ways: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """As `plan --json` prints it and plan.json keeps it."""
        way = self.way
        return {
            "fits": way is not None,
            "budget_bytes": self.budget_bytes,
            "budget_read": self.read_as,
            "peak_bytes": self.peak.as_json(),
            "breakdown": self.peak.breakdown,
            "chosen": None if way is None else way.as_json(self.accumulation * way.micro_batch),
            "reasons": self.reasons,
            "assumed": self.assumed,
            "seconds_per_step": round(self.seconds_per_step, 4),
            "smallest_budget_bytes": self.smallest_budget_bytes,
            "ways": self.ways,
        }


def plan(question: PlanningProblem) -> Plan:
    """The fastest way that fits, or what would be needed."""
    frugal = most_frugal(question.ways)
    smallest = question.peak(frugal)
    if smallest.process > question.budget.bytes:
        return _refused(question, frugal, smallest)
    way = _fastest(question)
    peak = question.peak(way)
    return Plan(
        way,
        peak,
        question.budget.bytes,
        question.budget.read_as,
        question.seconds(way),
        -(-share_of(question.recipe) // way.micro_batch),
        reasons_for(question, way, peak),
        list(question.assumed),
        min(smallest.process, peak.process),
        [],
    )


def _fastest(question: PlanningProblem) -> Strategy:
    """The fastest way that fits; there is one. A larger micro-batch is taken to need no less than a smaller."""
    best: Strategy | None = None
    for levers in question.levers:
        ways = sorted((replace(levers, micro_batch=size) for size in question.sizes), key=question.seconds)
        if best is not None and question.seconds(ways[0]) >= question.seconds(best):
            continue
        found = ways[0] if question.fits(ways[0]) else _fastest_of(question, ways)
        if found is not None and (best is None or question.seconds(found) < question.seconds(best)):
            best = found
    return best or most_frugal(question.ways)


def _fastest_of(question: PlanningProblem, ways: list[Strategy]) -> Strategy | None:
    """Of `ways`, the fastest first, that differ in their micro-batch alone: the first that fits."""
    by_size = sorted(ways, key=lambda way: way.micro_batch)
    fitting = set(by_size[: bisect_left(by_size, True, key=lambda way: not question.fits(way))])
    return next((way for way in ways if way in fitting and question.fits(way)), None)


def _refused(question: PlanningProblem, frugal: Strategy, smallest: Peak) -> Plan:
    wanting = smallest.process - question.budget.bytes
    why = f"even the most frugal way takes {show_size(smallest.process)}, {show_size(wanting)} more than the budget"
    return Plan(
        None,
        smallest,
        question.budget.bytes,
        question.budget.read_as,
        question.seconds(frugal),
        -(-share_of(question.recipe) // frugal.micro_batch),
        [{"setting": "budget", "value": question.budget.read_as, "because": why}],
        list(question.assumed),
        smallest.process,
        _cheapest_ways(question, frugal, smallest),
    )


def _cheapest_ways(question: PlanningProblem, frugal: Strategy, smallest: Peak) -> list[dict[str, Any]]:
    """Up to three changes that a person could allow, those first that fit, then by how little they change."""
    budget = question.budget.bytes
    found = [
        (change, question.peak(way, recipe).process) for change, recipe, way in _changes(question, frugal, smallest)
    ]
    saving = [(change, peak) for change, peak in found if peak < smallest.process]
    fitting = [each for each in saving if each[1] <= budget]
    others = sorted((each for each in saving if each not in fitting), key=lambda each: each[1])
    raised = (f"budget={-(-smallest.process // 2**20)}MiB", smallest.process)
    best = [*fitting, raised, *others][:3]
    return [
        {"change": change, "peak_bytes": peak, "fits": (change, peak) in [raised, *fitting]} for change, peak in best
    ]


def _changes(question: PlanningProblem, frugal: Strategy, smallest: Peak) -> Iterator[tuple[str, Recipe, Strategy]]:
    """What a person could allow, each with the recipe and the way that it makes."""
    recipe = question.recipe
    fixed = OPTIMIZERS.get(recipe.train.optimizer)
    if fixed is not None and fixed.smaller is not None:
        yield f"train.optimizer={fixed.smaller}", recipe, replace(frugal, optimizer=fixed.smaller)
    length = _longest_that_fits(question, frugal, smallest)
    yield f"data.max_length={length}", with_settings(recipe, "data", max_length=length), frugal
    for rank in (recipe.lora.rank // 2, recipe.lora.rank // 4):
        if rank >= 4 and recipe.lora.start_from is None:
            yield f"lora.rank={rank}", with_settings(recipe, "lora", rank=rank), frugal


def _longest_that_fits(question: PlanningProblem, frugal: Strategy, smallest: Peak) -> int:
    """The longest length limit, in eighths of the present one, that fits the budget; an eighth where none does."""
    recipe = question.recipe
    part = recipe.data.max_length / LENGTH_PARTS
    lengths = [max(16, int(part * parts) // 8 * 8) for parts in range(1, LENGTH_PARTS)]

    if sum(smallest.traced.resting.values()) > question.budget.bytes:  # what no length changes is too much already
        return lengths[0]

    def fits(length: int) -> bool:
        shorter = with_settings(recipe, "data", max_length=length)
        return question.peak(frugal, shorter).process <= question.budget.bytes

    return lengths[max(0, bisect_left(lengths, True, key=lambda length: not fits(length)) - 1)]
