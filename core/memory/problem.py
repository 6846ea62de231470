"""The planning problem: a recipe on a device within a budget; what each strategy takes, and how long its step is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from core.memory.budget import Budget
from core.memory.device import PlanningDevice
from core.memory.strategy import Strategy, most_frugal, seconds, share_of, strategies_of
from core.memory.trace import MicroBatch, Traced
from core.memory.workload import Data, Work, work_of
from core.recipe import Recipe
from core.system.hardware import BUSY_TOKENS


@dataclass(frozen=True)
class Peak:
    """Bytes at the step's highest moment: of tensors by category, and of the process around them."""

    traced: Traced
    target: PlanningDevice
    heap: str = "kept"

    @property
    def tensors(self) -> int:
        """What torch counts: tensors and the GPU libraries' workspace, but no states in managed memory."""
        return self.traced.peak + self.target.workspace_bytes

    @property
    def reserved(self) -> int:
        """With the allocator's blocks, which it keeps after the peak."""
        return self.target.reserved(self.tensors, self.heap)

    @property
    def process(self) -> int:
        """The whole process, with its context and the states in managed memory."""
        return self.reserved + self.traced.managed + self.target.context_bytes

    @property
    def breakdown(self) -> dict[str, int]:
        """The process' bytes by category; they add up to `process`."""
        counted = dict(self.traced.highest.at_peak)
        counted["optimizer"] += self.traced.managed
        counted["workspace"] += self.target.workspace_bytes
        return {**counted, "allocator": self.reserved - self.tensors, "context": self.target.context_bytes}

    def as_json(self) -> dict[str, int]:
        """The three numbers as plan.json holds them."""
        return {"tensors": self.tensors, "reserved": self.reserved, "process": self.process}


# What traces a step: (recipe, micro-batches, checkpointing, activation offload) to the counted bytes.
TraceOf = Callable[[Recipe, Sequence[MicroBatch], str, bool], Traced]


@dataclass(frozen=True)
class PlanningProblem:
    """A recipe on a device within a budget, over data whose lengths are known or assumed."""

    recipe: Recipe
    target: PlanningDevice
    budget: Budget
    parameters: int
    packed: bool
    data: Data
    trace_of: TraceOf
    assumed: tuple[str, ...] = ()
    # The share of the parameters that computes for one token.
    active: float = 1.0
    # Packed rows are computed without a mask.
    varlen: bool = False
    _work: dict[tuple[int, int], Work] = field(default_factory=dict)

    @cached_property
    def sizes(self) -> list[int]:
        """Micro-batches to choose from: the one that was set, or every divisor up to what keeps the device busy."""
        rules = self.recipe.train
        if rules.micro_batch is not None:
            return [rules.micro_batch]
        most = share_of(self.recipe)
        divisors = [size for size in range(1, most + 1) if rules.effective_batch % size == 0]
        parts, _ = self.data.parts(1, self.recipe.data.max_length, self.packed)
        mean = sum(part[0].length for part in parts) / len(parts)
        return [size for size in divisors if size == 1 or size * mean <= BUSY_TOKENS[self.target.kind]]

    @cached_property
    def strategies(self) -> list[Strategy]:
        """All of them, the fastest first."""
        return sorted(strategies_of(self.recipe, self.target, self.sizes), key=self.seconds)

    @cached_property
    def levers(self) -> list[Strategy]:
        """What strategies differ in besides the micro-batch, each with the largest one, the fastest first."""
        most = max(self.sizes)
        return [strategy for strategy in self.strategies if strategy.micro_batch == most]

    def work(self, size: int, max_length: int | None = None) -> Work:
        """The largest micro-batch and a step's tokens, with `size` conversations at once on the device."""
        length = max_length or self.recipe.data.max_length
        if (size, length) not in self._work:
            parts, steps = self.data.parts(size, length, self.packed)
            self._work[size, length] = work_of(parts, steps, self.packed)
        return self._work[size, length]

    def seconds(self, strategy: Strategy) -> float:
        """Roughly what an optimizer step takes."""
        work = self.work(strategy.micro_batch)
        return seconds(strategy, self.recipe, self.target, self.parameters, work, self.active)

    @cached_property
    def most_frugal(self) -> Strategy:
        """The strategy that takes the least of the device's memory, of those that ordinary memory has room for."""
        options = self.strategies
        for moves in (
            lambda each: each.streamed_from == "ram",
            lambda each: each.offload,
            lambda each: each.embeddings_in_ram,
        ):
            found = most_frugal(options)
            if self.has_ram_for(found):
                return found
            options = [each for each in options if not moves(each)]
        return most_frugal(options)

    def has_ram_for(self, strategy: Strategy) -> bool:
        """Whether ordinary memory takes what the strategy moves there."""
        moves = strategy.offload or strategy.embeddings_in_ram or strategy.streamed_from == "ram"
        processes = self.recipe.train.devices  # each moves its own there
        return not moves or self.target.has_ram_for(processes * self.peak(strategy).traced.moved)

    def fits(self, strategy: Strategy) -> bool:
        """Whether the strategy is within the budget, and what it moves within ordinary memory."""
        # Not worth a trace if even without any states it would not fit.
        if strategy.optimizer != self.strategies[0].optimizer:
            peak = self.peak(replace(strategy, optimizer=self.strategies[0].optimizer))
            stateless = peak.tensors - peak.traced.resting["optimizer"]
            if self.target.reserved(stateless, strategy.heap) + self.target.context_bytes > self.budget.bytes:
                return False
        return self.peak(strategy).process <= self.budget.bytes and self.has_ram_for(strategy)

    def peak(self, strategy: Strategy, recipe: Recipe | None = None) -> Peak:
        """What the step takes with this strategy."""
        recipe = with_settings(recipe or self.recipe, "train", optimizer=strategy.optimizer)
        largest = self.work(strategy.micro_batch, recipe.data.max_length).largest
        several = share_of(recipe) > strategy.micro_batch
        traced = self.trace_of(recipe, [largest] * (2 if several else 1), strategy.checkpointing, strategy.offload)
        if strategy.embeddings_in_ram:
            traced = traced.without_embeddings()
        if strategy.streamed_layers:
            traced = traced.with_streamed(strategy.streamed_layers, strategy.streamed_from == "ram")
        return Peak(traced, self.target, strategy.heap)


def with_settings(recipe: Recipe, group: str, **values: Any) -> Recipe:
    """The recipe with some settings of one group replaced, such as `train`; not validated anew."""
    return recipe.model_copy(update={group: getattr(recipe, group).model_copy(update=values)})
