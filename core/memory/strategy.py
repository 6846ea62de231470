"""The strategies for running the same training, and roughly how long a step of each takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from core.memory.device import PlanningDevice
from core.memory.fused_choice import fused_choice
from core.memory.workload import Work
from core.recipe import Recipe
from core.step.objective import objective_of
from core.step.optimizer import OPTIMIZERS, candidates, optimizer_for

CHECKPOINTING = ("off", "half", "full")
# Share of the forward pass that is computed again in the backward pass.
RECOMPUTED = {"off": 0.0, "half": 0.5, "full": 1.0}
# Seconds that each pass of a micro-batch takes whatever its size, for launching its operators.
PASS_SECONDS = {"cpu": 0.004, "mps": 0.01, "cuda": 0.01}
# A heap that returns each freed tensor pays for fresh pages: 1.35 to 1.8 times the time, measured with the starter.
RETURNING = 1.5
# Moving what the layers keep to ordinary memory and back, overlapped with computing. Not measured by us yet.
OFFLOADING = 1.1
# Bytes that dequantising a number moves: half a byte read, two written, or four where a GPU computes in fp32.
DEQUANTISED = {False: 2.5, True: 4.5}
# These two cost next to nothing; the numbers only rank them where both would do.
EMBEDDINGS_IN_RAM = 1.003
EIGHT_BIT_STATES = 1.006
# Waiting for streamed layers is not counted yet; these only rank where they lie.
STREAMED = {None: 1.0, "ram": 1.003, "disk": 1.03}


@dataclass(frozen=True)
class Strategy:
    """What the plan decides about how the training is run; none of it changes the result.

    `offload`: what the layers save for the backward pass is kept in ordinary memory. `embeddings_in_ram`: so are the
    input embeddings. `heap` is 'kept' (fast) or 'returned' (each freed tensor goes back to the system at once).
    `fused_lora`: base and adapter are computed in one pass, which rounds a little differently. `streamed_layers`: so
    many layers of the base lie elsewhere and visit the device, from 'ram' or 'disk' as `streamed_from` says.
    """

    micro_batch: int
    checkpointing: str
    optimizer: str = optimizer_for("auto").name
    offload: bool = False
    embeddings_in_ram: bool = False
    heap: str = "kept"
    fused_lora: bool = False
    streamed_layers: int = 0
    streamed_from: str | None = None

    def as_json(self, share: int) -> dict[str, Any]:
        """As plan.json has it under `chosen`; a device trains on `share` conversations of each step."""
        return {
            "micro_batch": self.micro_batch,
            "accumulation": -(-share // self.micro_batch),
            "checkpointing": self.checkpointing,
            "optimizer": self.optimizer,
            "activation_offload": self.offload,
            "embeddings_in_ram": self.embeddings_in_ram,
            "heap": self.heap,
            "fused_lora": self.fused_lora,
            "streamed_layers": self.streamed_layers,
            "streamed_from": self.streamed_from,
        }


def strategies_of(recipe: Recipe, target: PlanningDevice, sizes: Sequence[int]) -> Iterator[Strategy]:
    """All strategies that respect what the recipe fixes, in no order. `sizes`: the micro-batches to choose from."""
    rules = recipe.train
    modes = {"auto": CHECKPOINTING, "on": ("full",), "off": ("off",)}[rules.gradient_checkpointing]
    optimizers = [each.name for each in candidates(rules.optimizer)]
    moving = (False, True) if target.kind == "cuda" and not target.unified else (False,)
    embedding = moving if recipe.quantization.bits != 16 else (False,)  # transformers would move 16 bits back
    heaps = ("kept", "returned") if target.returns_memory else ("kept",)
    fused, _ = fused_choice(recipe, target)
    streamed = rules.streamed_layers or 0
    sources = (
        (None,) if not streamed else ("ram", "disk") if target.kind == "cuda" and not target.unified else ("disk",)
    )
    choices = product(sizes, modes, optimizers, embedding, heaps, sources)
    for size, mode, optimizer, embeddings, heap, source in choices:
        for offload in moving if mode == "full" else (False,):
            yield Strategy(size, mode, optimizer, offload, embeddings, heap, fused, streamed, source)


def share_of(recipe: Recipe) -> int:
    """Conversations of each optimizer step that one device trains on: all where there is one."""
    return -(-recipe.train.effective_batch // recipe.train.devices)


def most_frugal(strategies: Sequence[Strategy]) -> Strategy:
    """The one that takes the least of the device's memory."""
    return min(
        strategies,
        key=lambda strategy: (
            strategy.micro_batch,
            -CHECKPOINTING.index(strategy.checkpointing),
            not strategy.offload,
            OPTIMIZERS[strategy.optimizer].bits,
            not strategy.embeddings_in_ram,
            strategy.heap == "kept",
        ),
    )


def seconds(
    strategy: Strategy, recipe: Recipe, target: PlanningDevice, parameters: int, work: Work, active: float = 1.0
) -> float:
    """Roughly what an optimizer step takes; `active` is the share of the parameters that computes for one token."""
    again, objective = RECOMPUTED[strategy.checkpointing], objective_of(recipe)
    passes_a_row = objective.forward_passes * (2 + again) + objective.reference_passes
    passes = share_of(recipe) / strategy.micro_batch * passes_a_row
    arithmetic = 2 * passes_a_row * parameters * active * work.tokens_a_step / recipe.train.devices / target.flops
    dequantised = (
        passes * parameters * DEQUANTISED[target.kind == "cuda" and target.dtype == "float32"] / target.bandwidth
    )
    slower = 1.0
    slower *= RETURNING if strategy.heap == "returned" else 1.0
    slower *= OFFLOADING if strategy.offload else 1.0
    slower *= EMBEDDINGS_IN_RAM if strategy.embeddings_in_ram else 1.0
    slower *= STREAMED[strategy.streamed_from]
    slower *= EIGHT_BIT_STATES if OPTIMIZERS[strategy.optimizer].bits == 8 else 1.0
    return slower * (arithmetic + dequantised + passes * PASS_SECONDS[target.kind])
