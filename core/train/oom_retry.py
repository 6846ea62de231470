"""When memory runs out in a step: how much was missing, and the next more frugal strategy for the same step."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache

from core.memory.strategy import CHECKPOINTING, Strategy
from core.model.load import is_out_of_memory
from core.system.allocator import heap_can_return

T = TypeVar("T")

# What to do where even a save, outside the budget's limit, finds no memory.
CLOSE_OTHERS = "Close other programs that use the memory."

_ASKED = re.compile(r"tried to allocate ([\d.]+) (bytes|[KMGT]iB)", re.IGNORECASE)
_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


@dataclass(frozen=True)
class Shortage:
    """Memory ran out. `asked_bytes` is the request that could not be met; None where the error does not say."""

    asked_bytes: int | None


class OutOfRoom(MemoryError):
    """Memory ran out, and no more frugal strategy is left."""

    def __init__(self, shortage: Shortage) -> None:
        super().__init__("out of memory, even with the most frugal settings")
        self.shortage = shortage


def attempt(work: Callable[[], T]) -> T | Shortage:
    """What `work` returns, or the shortage that it met.

    The error is dropped before memory is freed: its traceback holds the tensors of the failed pass.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        shortage = Shortage(asked_bytes(str(error)))
    clear_device_cache(garbage_collection=True)
    return shortage


def twice(work: Callable[[], T]) -> T:
    """What `work` returns; if memory runs out, what it returns when unused memory has been freed."""
    done = attempt(work)
    return work() if isinstance(done, Shortage) else done


def asked_bytes(message: str) -> int | None:
    """The request that an out-of-memory error names, in bytes; torch says it differently on a CPU and on a GPU."""
    found = _ASKED.search(message)
    return round(float(found[1]) * _UNITS[found[2].lower()]) if found else None


def more_frugal(strategy: Strategy, effective_batch: int, device_kind: str) -> Strategy | None:
    """The next strategy down: half the micro-batch, more checkpointing, then what the device offers; else None.

    A micro-batch always divides `effective_batch`, so a step keeps its conversations.
    """
    if strategy.micro_batch > 1:
        halves = range(1, strategy.micro_batch // 2 + 1)
        return replace(strategy, micro_batch=max(size for size in halves if effective_batch % size == 0))
    stronger = CHECKPOINTING[CHECKPOINTING.index(strategy.checkpointing) + 1 :]
    if stronger:
        return replace(strategy, checkpointing=stronger[0])
    if device_kind == "cuda" and not strategy.offload:
        return replace(strategy, offload=True)
    if device_kind == "cpu" and strategy.heap == "kept" and heap_can_return():
        return replace(strategy, heap="returned")
    return None


class OomFallback:
    """The strategy of a run: the plan's at first, and a more frugal one after each shortage."""

    def __init__(
        self,
        strategy: Strategy,
        effective_batch: int,
        report: Callable[[Strategy, Strategy, Shortage], None],
        device_kind: str,
    ) -> None:
        self.strategy, self._report = strategy, report
        self.effective_batch, self.device_kind = effective_batch, device_kind

    def step_down(self, shortage: Shortage) -> Strategy:
        """Take the next strategy down, and report it. Raises OutOfRoom where there is none."""
        strategy = more_frugal(self.strategy, self.effective_batch, self.device_kind)
        if strategy is None:
            raise OutOfRoom(shortage)
        self._report(self.strategy, strategy, shortage)
        self.strategy = strategy
        return strategy
