"""The same effective batch gives the same trajectory: split, packed or checkpointed as it may be, on the starter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import core.model.load
from core.basemodel.find import find_model
from core.data.batches import MIN_PACK_WIDTH, MicroBatches, balanced, data_order, packed_batch, padded_batch
from core.data.dataset import load
from core.data.rendering.render import IGNORED, Rendered, render_all
from core.data.samples import find_sample
from core.memory.strategy import Strategy
from core.model.load import attach_lora, load_base, load_tokenizer
from core.recipe import Recipe, make_recipe
from core.system.hardware import Device
from core.train.trainer import NibbleTrainer
from core.train.trl_config import trainer_config

STEPS = 8
EFFECTIVE = 8
CPU = Device("cpu", "CPU", 2**34, 2**33)
Losses = list[float]


class _Losses(TrainerCallback):
    def __init__(self) -> None:
        self.each: Losses = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **named: Any) -> None:
        """After each step: its mean loss a trained token, in nats."""
        if "loss" in logs:
            self.each.append(float(logs["loss"]))


@pytest.fixture(scope="module")
def in_fp32() -> Iterator[None]:
    """Also where the CPU would compute in bf16: the bars are those of fp32's rounding."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core.model.load, "compute_dtype", lambda *_: ("float32", "the test says so"))
        yield


def _adapted(recipe: Recipe) -> Any:
    torch.manual_seed(recipe.train.seed)
    base = load_base(find_model(recipe.model), recipe.quantization, CPU)
    return attach_lora(base, recipe.lora, torch.float32)


def _conversations(recipe: Recipe) -> Any:
    sample = find_sample("pirate")
    assert sample is not None
    return render_all(load_tokenizer(find_model(recipe.model)), load(sample.path, recipe.data), recipe.data).usable


@pytest.fixture(scope="module")
def trajectory(in_fp32: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, bool, str], Losses]:
    """The losses of STEPS steps of the real trainer, by micro-batch, packing and checkpointing."""
    recipe = make_recipe({"model": "starter", "train.effective_batch": EFFECTIVE, "train.learning_rate": 2e-3})
    rows = _conversations(recipe)
    order = data_order(len(rows), STEPS, EFFECTIVE, recipe.train.seed)
    folder: Path = tmp_path_factory.mktemp("trajectory")

    @cache
    def train(micro_batch: int, packed: bool, checkpointing: str) -> Losses:
        config = trainer_config(recipe, folder, "cpu", torch.float32, STEPS, Strategy(micro_batch, checkpointing))
        seen = _Losses()
        batches = MicroBatches(rows, order, micro_batch, packed)
        tokenizer = load_tokenizer(find_model(recipe.model))
        NibbleTrainer(_adapted(recipe), tokenizer, batches, config, seen, checkpointing).train()
        assert seen.each[-1] < 0.9 * seen.each[0], "it has learned, so that a difference could grow"
        return seen.each

    return train


def test_eight_at_once_and_eight_accumulated_are_one_trajectory(trajectory: Any) -> None:
    assert trajectory(8, True, "off") == pytest.approx(trajectory(1, True, "off"), abs=1e-4)


def test_packed_and_padded_are_one_trajectory(trajectory: Any) -> None:
    assert trajectory(8, True, "off") == pytest.approx(trajectory(8, False, "off"), abs=1e-4)


def test_padded_two_at_once_by_length_are_the_same_trajectory(trajectory: Any) -> None:
    assert trajectory(2, False, "off") == pytest.approx(trajectory(8, True, "off"), abs=1e-4)


@pytest.mark.parametrize("mode", ["half", "full"])
def test_checkpointing_changes_nothing_but_memory(trajectory: Any, mode: str) -> None:
    assert trajectory(8, True, "off") == pytest.approx(trajectory(8, True, mode), abs=1e-5)


def _loss_of_each(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The loss at each target, in nats, row by row."""
    inputs = {key: value for key, value in batch.items() if key not in ("labels", "real_tokens")}
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits[:, :-1]
    targets = batch["labels"][:, 1:]
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return each[targets.flatten() != IGNORED]


def test_each_token_has_the_same_loss_packed_and_padded(in_fp32: None) -> None:
    recipe = make_recipe({"model": "starter"})
    model = _adapted(recipe).eval()
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.02)
    rows: list[Rendered] = _conversations(recipe)[:16]
    lengths = [len(row.ids) for row in rows]
    packs = balanced(lengths, max(MIN_PACK_WIDTH, *lengths))
    assert len(packs) < len(rows) / 2
    alone = [_loss_of_each(model, padded_batch([row])) for row in rows]
    assert torch.allclose(_loss_of_each(model, padded_batch(rows)), torch.cat(alone), atol=1e-4)
    as_packed = torch.cat([alone[index] for pack in packs for index in pack])
    assert torch.allclose(_loss_of_each(model, packed_batch(rows)), as_packed, atol=1e-4)
