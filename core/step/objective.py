"""What training minimises: the loss of a micro-batch, and what a row costs. Supervised fine-tuning is the only one yet.

The trainer asks for the loss, in its steps and in its evaluations; the memory trace for the same loss of a micro-batch
that is only a shape; the plan for the passes through the model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from core.data.batches import Batch
from core.recipe import Recipe
from core.step.loss import loss_at, summed_loss


@dataclass(frozen=True)
class Objective:
    """An objective of training. Its losses are summed over a micro-batch, in nats; scalars, fp32.

    `loss` takes the causal model (not PEFT's wrapper), a micro-batch, and whether the model's head computes as
    `core.step.loss` does; where it does not, trl's fused head is in its place. `loss_at` is that loss where the hidden
    states are there already, with what to predict at which places (`core.step.loss.loss_at`).

    A row takes `forward_passes` that are followed by backward passes, and `reference_passes` through the base without
    its adapter, which has no weights of its own and keeps nothing for a backward pass.
    """

    name: str
    loss: Callable[[Any, Batch, bool], torch.Tensor]
    loss_at: Callable[..., torch.Tensor]
    forward_passes: int = 1
    reference_passes: int = 0


def _likelihood(causal: Any, batch: Batch, own_head: bool) -> torch.Tensor:
    """The negative log-likelihood of the tokens that are trained on, each times its weight."""
    if own_head:
        return summed_loss(causal, **batch)
    weights = batch.get("weights")
    inputs = {key: value for key, value in batch.items() if key != "weights"}
    each = causal(**inputs, use_cache=False, fused_lm_head=True).log_probs.float()
    return -(each if weights is None else each * weights[:, 1:]).sum()


SUPERVISED = Objective("supervised fine-tuning", _likelihood, loss_at)


def objective_of(recipe: Recipe) -> Objective:
    """What a run of `recipe` minimises."""
    return SUPERVISED
