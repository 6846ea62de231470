"""How much of a step's time its bare matrix products take: the share of the processor's own matrix rate.

The model has SmolLM2-135M's shape and random weights. In turns, one micro-batch of whole conversations of 512 tokens
is trained, optimizer included, and the products of the same sizes are done alone, in the same dtype: every frozen
matrix by the tokens, forward and backward, the head among them. What else a step does counts as loss: the adapters'
own products, attention, dequantising, the loss, norms.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit

from bench._engines import StepTimer, adapted, time_limit
from bench._random_model import load_random
from core.basemodel.find import find_model
from core.catalogue.facts import find_model_facts
from core.data.batches import MicroBatches
from core.data.rendering.render import Rendered
from core.memory.strategy import Strategy
from core.model.load import dtype_for, load_tokenizer
from core.recipe import Recipe
from core.system.hardware import device
from core.train.trainer import NibbleTrainer
from core.train.trl_config import trainer_config

MODEL = "smollm2-135m"
CONVERSATIONS, LENGTH = 4, 512
TURNS = 5
# One layer's products are done so often, for all layers together: every layer is like another.
SAMPLED_LAYERS = 6


@dataclass(frozen=True)
class Share:
    """Medians of the turns: real tokens a second, the bare products' operations a second, and the share in percent."""

    tokens_per_second: float
    operations_per_second: float
    percent: float


def matrix_share(recipe: Recipe, folder: Path, end: float, to_spare: float = 0) -> Share | None:
    """The medians of the turns before `end` (time.monotonic()), None without one; `to_spare` seconds may be left."""
    base = in_rows(load_random(find_model_facts(MODEL).config, recipe.quantization, device(), dtype_for(device())[0]))
    step, bare = _Step(adapted(base, recipe), recipe, folder), _Bare(base)
    pairs: list[tuple[float, float]] = []
    with time_limit(end):
        step.seconds(), bare.seconds()  # they warm up
        while len(pairs) < TURNS and not (pairs and time.monotonic() > end - to_spare):
            pairs.append((step.seconds(), bare.seconds()))
    if not pairs:
        return None
    whole, products = (statistics.median(each) for each in zip(*pairs, strict=True))
    percent = 100 * statistics.median(second / first for first, second in pairs)
    return Share(CONVERSATIONS * LENGTH / whole, bare.operations / products, percent)


def in_rows(base: Any) -> Any:
    """`base` with its matrices as a file holds them: load_random leaves embeddings as views that torch would copy."""
    for parameter in base.parameters():
        parameter.data = parameter.data.contiguous()
    return base


class _Step:
    """Optimizer steps of one micro-batch, in Nibble's trainer."""

    def __init__(self, model: Any, recipe: Recipe, folder: Path) -> None:
        dtype, _ = dtype_for(device())
        rows = [_conversation(row) for row in range(CONVERSATIONS)]
        batches = MicroBatches(rows, [list(range(CONVERSATIONS))], CONVERSATIONS, packed=True)
        config = trainer_config(recipe, folder, device().kind, dtype, 1, Strategy(CONVERSATIONS, "off"))
        self.timer = StepTimer()
        self.trainer = NibbleTrainer(model, load_tokenizer(find_model("starter")), batches, config, self.timer, "off")

    def seconds(self) -> float:
        """The time of one step."""
        self.timer.seconds = 0.0
        self.trainer.train()
        return self.timer.seconds


def _conversation(row: int) -> Rendered:
    """Any tokens; all but the first are learned."""
    ids = [5 + (row * 7 + at) % 500 for at in range(LENGTH)]
    return Rendered(row, ids, [at > 0 for at in range(LENGTH)], LENGTH)


class _Bare:
    """The products of a step with the frozen matrices of `base`, on random numbers."""

    def __init__(self, base: Any) -> None:
        dtype, tokens = dtype_for(device())[0], CONVERSATIONS * LENGTH
        self.layers = base.config.num_hidden_layers
        matrices = [each for each in base.model.layers[0].modules() if isinstance(each, Linear4bit)]
        shapes = [(each.out_features, each.in_features) for each in matrices]
        self.layer = [_operands(tokens, shape, dtype) for shape in shapes]
        self.head = _operands(tokens, tuple(base.get_output_embeddings().weight.shape), dtype)
        each_token = self.layers * sum(out * width for out, width in shapes) + self.head[1].numel()
        self.operations = 4 * tokens * each_token

    def seconds(self) -> float:
        """What all of them take, the layers extrapolated from a sample."""
        of_layers = _timed(self.layer * SAMPLED_LAYERS) * self.layers / SAMPLED_LAYERS
        return of_layers + _timed([self.head])


def _operands(tokens: int, shape: tuple[int, int], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    out, width = shape
    return tuple(torch.randn(size).to(dtype) for size in ((tokens, width), (out, width), (tokens, out)))


def _timed(operands: list[tuple[torch.Tensor, ...]]) -> float:
    began = time.perf_counter()
    for _ in _products(operands):
        pass
    return time.perf_counter() - began


def _products(operands: list[tuple[torch.Tensor, ...]]) -> Iterator[torch.Tensor]:
    for x, weight, gradient in operands:
        yield x @ weight.t()
        yield gradient @ weight
