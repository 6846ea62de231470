"""Several processes that train one adapter: each takes its share of every step, and their gradients are summed.

Each has its own device with the whole base on it, or a part (core/train/sharding.py). Gradients are summed once a step,
after a process has done all of its micro-batches, not by hooks in the backward pass as in torch's DDP: so one that runs
out of memory can do its share again in smaller parts while the others wait. Adapters are small, so one sum a step costs
little. Covered: any number of processes on one machine or several, over gloo on a CPU and NCCL on GPUs.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from core.train.ranks import forget_place

# The others wait while the first evaluates or saves. A process that died is noticed by ranks.py, not by a timeout.
PATIENCE = timedelta(days=7)
EVALUATE = "evaluate"


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together: number `rank` of `count`. Rank 0 alone writes and decides.

    `sharded`: each holds a part of the base, so that all have to compute together, evaluations included.
    """

    rank: int = 0
    count: int = 1
    sharded: bool = False

    def share(self, rows: Sequence[int], length: Callable[[int], int]) -> list[int]:
        """Those of a step's `rows` that this process takes; long and short ones, by `length`, are dealt out evenly."""
        if self.count == 1:
            return list(rows)
        return sorted(rows, key=lambda row: (-length(row), row))[self.rank :: self.count]

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of every process' `value`, the same in all of them."""
        if self.count > 1:
            dist.all_reduce(value)
        return value

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Give each of the trained `parameters` the sum of its gradients over all processes; none counts as zero."""
        if self.count == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        together = torch.cat([parameter.grad.flatten() for parameter in trained])
        dist.all_reduce(together)
        for parameter, gradient in zip(trained, together.split([each.numel() for each in trained]), strict=True):
            parameter.grad.copy_(gradient.view_as(parameter))

    def copy_from_first(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Give the trained `parameters` the values that they have in rank 0."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.requires_grad:
                dist.broadcast(parameter.data, src=0)

    def together(self, mine: list[int]) -> list[int]:
        """The lists of all processes in one."""
        if self.count == 1:
            return mine
        every: list[Any] = [None] * self.count
        dist.all_gather_object(every, mine)
        return [each for one in every for each in one]

    def call_along(self) -> None:
        """Rank 0 is about to evaluate: if it cannot do so alone, have the others do the same."""
        if self.sharded and self.rank == 0:
            self.from_first(EVALUATE)

    def meet(self) -> None:
        """Wait until every process has come so far."""
        self.from_first(None)

    def from_first(self, value: Any) -> Any:
        """Rank 0's `value`, in every process."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


ALONE = Ranks()


class KeepInStep(TrainerCallback):
    """Starts all processes from the same adapter, and ends them after the same step. Comes behind the watcher.

    `watcher` evaluates along where this is not rank 0 (`call_along`).
    """

    def __init__(self, ranks: Ranks, watcher: Any) -> None:
        self.ranks, self.watcher = ranks, watcher

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **named: Any) -> None:
        """Before the first step, when rank 0 has looked at the base."""
        self._as_first_does(0, False)
        self.ranks.copy_from_first(model.parameters())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **named: Any) -> None:
        """After each step, when rank 0 has looked after it: do they go on?"""
        if logs and "loss" in logs:
            control.should_training_stop = self._as_first_does(state.global_step, control.should_training_stop)

    def _as_first_does(self, step: int, stop: bool) -> bool:
        """Evaluate along until rank 0 says whether to stop."""
        while (answer := self.ranks.from_first(stop)) == EVALUATE:
            self.watcher.evaluate_along(step)
        return bool(answer)


def join(device: str, sharded: bool) -> Ranks:
    """Meet the processes that the environment names as accelerate's launcher and torchrun name them.

    Returns ALONE where it names none. The names are taken out of the environment: to transformers, each process is one
    by itself.
    """
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    forget_place()
    if count == 1:
        return ALONE
    ranks = Ranks(rank, count, sharded)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE, rank=ranks.rank, world_size=ranks.count)
    return ranks
