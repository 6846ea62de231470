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
from core.step.head import Head
from core.step.loss import loss_at, summed_loss


@dataclass(frozen=True)
class Objective:
    """An objective of training. Its losses are summed over a micro-batch, in nats; scalars, fp32.

    `loss` takes the causal model (not PEFT's wrapper), a micro-batch, and the model's head as `core.step.head.head_of`
    finds it. `loss_at` is that loss where the hidden states are there already, with what to predict at which places
    (`core.step.loss.loss_at`).

    A row takes `forward_passes` that are followed by backward passes, and `reference_passes` through the base without
    its adapter, which has no weights of its own and keeps nothing for a backward pass.
    """

    name: str
    loss: Callable[[Any, Batch, Head | None], torch.Tensor]
    loss_at: Callable[..., torch.Tensor]
    forward_passes: int = 1
    reference_passes: int = 0


def _likelihood(causal: Any, batch: Batch, head: Head | None) -> torch.Tensor:
    """The negative log-likelihood of the tokens that are trained on, each times its weight."""
    return summed_loss(causal, head, **batch)


SUPERVISED = Objective("supervised fine-tuning", _likelihood, loss_at)


def objective_of(recipe: Recipe) -> Objective:
    """What a run of `recipe` minimises."""
    return SUPERVISED
