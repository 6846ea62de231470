"""Spends a budget: of all strategies for the same training, the fastest that fits, with a reason for each choice.

What changes the result (length, rank, effective batch) is never touched; what would make it fit is suggested.
Strategies are tried from the fastest on, so a bigger budget never gives a slower plan, nor a smaller one a bigger peak.
"""

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
    """What was chosen, and why. Where nothing fits, `strategy` is None and `peak` that of the most frugal one."""

    strategy: Strategy | None
    peak: Peak
    budget_bytes: int
    read_as: str
    seconds_per_step: float
    accumulation: int
    reasons: list[dict[str, Any]]
    assumed: list[str]
    smallest_budget_bytes: int
    suggestions: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """As `plan --json` prints it and plan.json keeps it."""
        chosen = self.strategy
        return {
            "fits": chosen is not None,
            "budget_bytes": self.budget_bytes,
            "budget_read": self.read_as,
            "peak_bytes": self.peak.as_json(),
            "breakdown": self.peak.breakdown,
            "chosen": None if chosen is None else chosen.as_json(self.accumulation * chosen.micro_batch),
            "reasons": self.reasons,
            "assumed": self.assumed,
            "seconds_per_step": round(self.seconds_per_step, 4),
            "smallest_budget_bytes": self.smallest_budget_bytes,
            "ways": self.suggestions,
        }


def plan(problem: PlanningProblem) -> Plan:
    """The fastest strategy that fits, or what would be needed."""
    frugal = problem.most_frugal
    smallest = problem.peak(frugal)
    fits = smallest.process <= problem.budget.bytes
    strategy = _fastest(problem) if fits else frugal
    peak = problem.peak(strategy)
    return Plan(
        strategy if fits else None,
        peak,
        problem.budget.bytes,
        problem.budget.read_as,
        problem.seconds(strategy),
        -(-share_of(problem.recipe) // strategy.micro_batch),
        reasons_for(problem, strategy, peak) if fits else [_too_small(problem, smallest)],
        list(problem.assumed),
        min(smallest.process, peak.process),
        [] if fits else _suggestions(problem, frugal, smallest),
    )


def _fastest(problem: PlanningProblem) -> Strategy:
    """The fastest strategy that fits; there is one. A larger micro-batch is taken to need no less than a smaller."""
    best: Strategy | None = None
    for levers in problem.levers:
        strategies = sorted((replace(levers, micro_batch=size) for size in problem.sizes), key=problem.seconds)
        if best is not None and problem.seconds(strategies[0]) >= problem.seconds(best):
            continue
        found = strategies[0] if problem.fits(strategies[0]) else _fastest_of(problem, strategies)
        if found is not None and (best is None or problem.seconds(found) < problem.seconds(best)):
            best = found
    return best or problem.most_frugal


def _fastest_of(problem: PlanningProblem, strategies: list[Strategy]) -> Strategy | None:
    """Of `strategies`, the fastest first, that differ in their micro-batch alone: the first that fits."""
    by_size = sorted(strategies, key=lambda strategy: strategy.micro_batch)
    fitting = set(by_size[: bisect_left(by_size, True, key=lambda strategy: not problem.fits(strategy))])
    return next((strategy for strategy in strategies if strategy in fitting and problem.fits(strategy)), None)


def _too_small(problem: PlanningProblem, smallest: Peak) -> dict[str, Any]:
    missing = show_size(smallest.process - problem.budget.bytes)
    why = f"even the most frugal settings take {show_size(smallest.process)}, {missing} more than the budget"
    if problem.most_frugal != most_frugal(problem.strategies):
        free = show_size(problem.target.free_ram or 0)
        why += f"; ordinary memory, of which {free} is free, has no room for what could be moved there"
    return {"setting": "budget", "value": problem.budget.read_as, "because": why}


def _suggestions(problem: PlanningProblem, frugal: Strategy, smallest: Peak) -> list[dict[str, Any]]:
    """Up to three changes that a person could allow, those first that fit, then by how little they change."""
    budget = problem.budget.bytes
    changes = _changes(problem, frugal, smallest)
    found = [(change, problem.peak(strategy, recipe).process) for change, recipe, strategy in changes]
    saving = [each for each in found if each[1] < smallest.process]
    fitting = [each for each in saving if each[1] <= budget]
    others = sorted((each for each in saving if each not in fitting), key=lambda each: each[1])
    raised = (f"budget={-(-smallest.process // 2**20)}MiB", smallest.process)
    best = [*fitting, raised, *others][:3]
    fit = [raised, *fitting]
    return [{"change": each[0], "peak_bytes": each[1], "fits": each in fit} for each in best]


def _changes(problem: PlanningProblem, frugal: Strategy, smallest: Peak) -> Iterator[tuple[str, Recipe, Strategy]]:
    """What a person could allow, each with the recipe and the strategy that it makes."""
    recipe = problem.recipe
    fixed = OPTIMIZERS.get(recipe.train.optimizer)
    if fixed is not None and fixed.smaller is not None:
        yield f"train.optimizer={fixed.smaller}", recipe, replace(frugal, optimizer=fixed.smaller)
    length = _longest_that_fits(problem, frugal, smallest)
    yield f"data.max_length={length}", with_settings(recipe, "data", max_length=length), frugal
    for rank in (recipe.lora.rank // 2, recipe.lora.rank // 4):
        if rank >= 4 and recipe.lora.start_from is None:
            yield f"lora.rank={rank}", with_settings(recipe, "lora", rank=rank), frugal


def _longest_that_fits(problem: PlanningProblem, frugal: Strategy, smallest: Peak) -> int:
    """The longest length limit, in eighths of the present one, that fits the budget; an eighth where none does."""
    recipe = problem.recipe
    part = recipe.data.max_length / LENGTH_PARTS
    lengths = [max(16, int(part * parts) // 8 * 8) for parts in range(1, LENGTH_PARTS)]
    if sum(smallest.traced.resting.values()) > problem.budget.bytes:  # what no length changes is too much already
        return lengths[0]

    def fits(length: int) -> bool:
        shorter = with_settings(recipe, "data", max_length=length)
        return problem.peak(frugal, shorter).process <= problem.budget.bytes

    return lengths[max(0, bisect_left(lengths, True, key=lambda length: not fits(length)) - 1)]
