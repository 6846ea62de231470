"""The objective: whoever computes, measures or plans a loss asks it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from core.catalogue.facts import find_card
from core.data.batches import MicroBatches, packed_batch
from core.data.rendering.render import Rendered
from core.memory import strategy
from core.memory.device import of_card
from core.memory.meta_model import meta_model
from core.memory.strategy import Strategy, seconds
from core.memory.trace import MicroBatch, trace
from core.memory.workload import Work
from core.recipe import Recipe, make_recipe
from core.step.objective import SUPERVISED
from core.step.optimizer import OPTIMIZERS
from core.train.trainer import NibbleTrainer
from core.train.trl_config import trainer_config


def test_the_trainer_and_its_evaluations_ask_it(adapted: Any, tokenizer: Any, tmp_path: Path) -> None:
    rows = [Rendered(1, list(range(3, 23)), [True] * 20, 20)]
    recipe = make_recipe({"train.effective_batch": 1})
    config = trainer_config(recipe, tmp_path, "cpu", torch.float32, 1, Strategy(1, "off"))
    twice = replace(SUPERVISED, loss=lambda *given: 2 * SUPERVISED.loss(*given))
    trainer = NibbleTrainer(adapted, tokenizer, MicroBatches(rows, [[0]], 1, True), config, TrainerCallback())
    plain = trainer.held_out_loss([packed_batch(rows)])
    trainer.objective = twice
    assert trainer.held_out_loss([packed_batch(rows)]) == pytest.approx(2 * plain)
    trainer.train()
    assert trainer.outcome.loss == pytest.approx(2 * plain)


def test_the_trace_asks_it() -> None:
    sizes = {"vocab_size": 640, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    recipe, asked = Recipe(), []

    def loss_at(*given: Any) -> torch.Tensor:
        asked.append(given)
        return SUPERVISED.loss_at(*given)

    model = meta_model({"model_type": "llama", **sizes}, recipe.quantization, recipe.lora, torch.float32, torch.float32)
    watched = replace(SUPERVISED, loss_at=loss_at)
    trace(model, [MicroBatch(1, 32, 30)], "cpu", OPTIMIZERS["adamw"], "off", objective=watched)
    assert len(asked) == 2  # a micro-batch in each of two steps


def test_the_plan_asks_it_for_its_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def planned() -> float:
        target, work = of_card(find_card("rtx-4090-24gb")), Work(MicroBatch(1, 512, 500), 8192)
        return seconds(Strategy(1, "off"), Recipe(), target, 10**9, work)

    plain = planned()
    with_reference = replace(SUPERVISED, forward_passes=2, reference_passes=2)
    monkeypatch.setattr(strategy, "objective_of", lambda recipe: with_reference)
    assert planned() == pytest.approx(3 * plain)
