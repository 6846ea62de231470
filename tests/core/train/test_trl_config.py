"""What a person chooses for the training reaches trl as it is meant, and NEFTune does what its authors' does."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import TrainerCallback

from core import settings
from core.data.batches import MicroBatches, packed_batch, padded_batch
from core.data.rendering.render import Rendered
from core.errors import RecipeError
from core.memory.strategy import Strategy
from core.recipe import make_recipe
from core.step.head import last_hidden
from core.step.neftune import add_noise, lengths
from core.step.optimizer import OPTIMIZERS
from core.step.packing import packing_is_wanted
from core.train.trainer import NibbleTrainer
from core.train.trl_config import trainer_config
from tests.core.model.tiny_adapted import adapted_to
from tests.tiny import tiny_model


def rows(*sizes: int) -> list[Rendered]:
    return [
        Rendered(i, [3 + (i + at) % 200 for at in range(size)], [True] * size, size) for i, size in enumerate(sizes)
    ]


def trainer(model: Any, tokenizer: Any, folder: Path, steps: int = 2, **settings: Any) -> NibbleTrainer:
    recipe = make_recipe({"train.effective_batch": 2, "train.micro_batch": 1, **settings})
    config = trainer_config(recipe, folder, "cpu", torch.float32, steps, Strategy(1, "off"))
    batches = MicroBatches(rows(20, 30), [[0, 1]] * steps, 1, packed=True)
    return NibbleTrainer(model, tokenizer, batches, config, TrainerCallback())


@pytest.mark.parametrize(
    "name", ["paged_adamw_32bit", "paged_adamw_8bit", "paged_lion_32bit", "paged_lion_8bit", "adamw"]
)
def test_the_optimizer_is_the_one_that_was_chosen(adapted: Any, tokenizer: Any, tmp_path: Path, name: str) -> None:
    made = trainer(adapted, tokenizer, tmp_path, **{"train.optimizer": name})
    made.train()
    inner = made.optimizer.optimizer
    assert type(inner).__name__ == ("Lion" if "lion" in name else "AdamW")
    if "lion" in name:
        assert (inner.args.optim_bits, inner.defaults["betas"]) == (8 if "8bit" in name else 32, (0.9, 0.99))
    else:
        assert inner.defaults["betas"] == (0.9, 0.999)


def test_on_a_gpu_the_paged_optimizers_are_paged_and_apples_has_no_lion() -> None:
    for name in ("paged_adamw_32bit", "paged_adamw_8bit", "paged_lion_32bit", "paged_lion_8bit"):
        assert OPTIMIZERS[name].name_on("cuda") == name
    assert OPTIMIZERS["adamw"].name_on("cuda") == "adamw_torch_fused"
    assert OPTIMIZERS["paged_adamw_8bit"].name_on("mps") == "adamw_torch_fused"
    with pytest.raises(RecipeError, match="Lion, 8 bits does not run on Apple's GPU"):
        OPTIMIZERS["paged_lion_8bit"].name_on("mps")


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("auto", "adamw_torch_fused"),
        ("paged_adamw_32bit", "adamw_torch_fused"),
        ("paged_adamw_8bit", "adamw_8bit"),
        ("paged_lion_32bit", "lion_32bit"),
        ("paged_lion_8bit", "lion_8bit"),
        ("adamw", "adamw_torch_fused"),
    ],
)
def test_on_a_gpu_without_managed_memory_nothing_is_paged(tmp_path: Path, name: str, runs: str) -> None:
    recipe = make_recipe({"train.optimizer": name})
    on_a_card = partial(trainer_config, recipe, tmp_path, "cuda", torch.float16, 1, Strategy(1, "off"))
    assert on_a_card(pages=False).optim == runs
    if "paged" in name:
        assert on_a_card(pages=True).optim == name


def test_a_recipe_can_name_what_the_table_has_and_nothing_else() -> None:
    assert get_args(settings.Optimizer) == ("auto", *OPTIMIZERS)
    for each in OPTIMIZERS.values():
        assert each.smaller is None or OPTIMIZERS[each.smaller].bits < each.bits


def test_a_beta_that_was_set_is_the_one_used(tmp_path: Path) -> None:
    for optimizer in ("adamw", "paged_lion_8bit"):
        recipe = make_recipe({"train.optimizer": optimizer, "train.beta2": 0.95})
        assert trainer_config(recipe, tmp_path, "cpu", torch.float32, 1, Strategy(1, "off")).adam_beta2 == 0.95


def test_packing_is_left_where_it_is_not_wanted_or_not_followed() -> None:
    assert packing_is_wanted(make_recipe({}).train)
    assert not packing_is_wanted(make_recipe({"train.packing": "off"}).train)
    assert not packing_is_wanted(make_recipe({"train.attention": "flash_attention_2"}).train)


def test_a_tokens_conversation_is_measured_packed_or_padded() -> None:
    packed, padded = packed_batch(rows(7, 9)), padded_batch(rows(7, 9))
    assert lengths(packed).tolist() == [[9.0] * 9 + [7.0] * 7]
    assert lengths(padded).tolist() == [[7.0] * 9, [9.0] * 9]
    assert lengths({"input_ids": packed["input_ids"]}).tolist() == [[16.0] * 16]


@pytest.mark.parametrize("collate", [packed_batch, padded_batch])
def test_the_noise_is_as_large_as_the_authors(adapted: Any, collate: Any) -> None:
    """Uniform within alpha / sqrt(tokens of the conversation x width), packed or padded (arXiv 2310.05914)."""
    causal, seen = adapted.get_base_model(), []
    add_noise(causal, 5.0)
    embeddings = causal.get_input_embeddings()
    embeddings.register_forward_hook(lambda module, given, output: seen.append(output.detach()))
    batch = {key: value for key, value in collate(rows(200, 50)).items() if key not in ("labels", "real_tokens")}
    adapted.train()
    last_hidden(causal, **batch)
    noise = seen[0] - torch.nn.functional.embedding(batch["input_ids"], embeddings.weight)
    for length in (200, 50):
        largest, width = noise[lengths(batch) == length].abs().max().item(), embeddings.weight.shape[1]
        assert 0.98 < largest / (5.0 / math.sqrt(length * width)) <= 1.0001
    adapted.eval()
    last_hidden(causal, **batch)
    assert torch.equal(seen[1], torch.nn.functional.embedding(batch["input_ids"], embeddings.weight))


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "falcon", "bloom"])
def test_models_that_pass_their_tokens_on_by_place_get_it(architecture: str, tokenizer: Any, tmp_path: Path) -> None:
    model = adapted_to(tiny_model(tmp_path / "base", architecture))
    made = trainer(model, tokenizer, tmp_path, **{"train.neftune_alpha": 50.0})
    assert made.head is not None
    made.model.train()
    inputs = {key: value for key, value in padded_batch(rows(20)).items() if key not in ("labels", "real_tokens")}
    assert not torch.equal(made.model(**inputs).logits, made.model(**inputs).logits)


def test_noise_is_in_the_training_and_not_in_the_held_out_loss(adapted: Any, tokenizer: Any, tmp_path: Path) -> None:
    made = trainer(adapted, tokenizer, tmp_path, **{"train.neftune_alpha": 50.0})
    assert made.head is not None
    batch = packed_batch(rows(20))
    held_out = [made.held_out_loss([batch]) for _ in range(2)]
    assert held_out[0] == held_out[1]
    made.model.train()
    inputs = {key: value for key, value in batch.items() if key != "real_tokens"}
    training = {made.summed_loss(dict(inputs)).item() for _ in range(3)}
    assert len(training) == 3


def test_without_neftune_there_is_no_noise(adapted: Any, tokenizer: Any, tmp_path: Path) -> None:
    made = trainer(adapted, tokenizer, tmp_path)
    made.model.train()
    inputs = {key: value for key, value in packed_batch(rows(20)).items() if key != "real_tokens"}
    assert len({made.summed_loss(dict(inputs)).item() for _ in range(2)}) == 1


@pytest.mark.parametrize(
    ("bits", "lora"),
    [
        *((bits, {"extra_modules": ["embeddings", "head"]}) for bits in (4, 8, 16)),
        *((bits, {"init": "pissa"}) for bits in (4, 8, 16)),
        *((bits, {"dora": True}) for bits in (4, 16)),  # in 8 the recipe refuses it
    ],
    ids=str,
)
def test_the_trainer_trains_what_was_chosen(tiny: Path, tokenizer: Any, tmp_path: Path, lora: Any, bits: int) -> None:

    made = trainer(adapted_to(tiny, bits, **lora), tokenizer, tmp_path, steps=6, **{"train.learning_rate": 0.01})
    assert made.head is not None
    batch = [packed_batch(rows(20, 30))]
    before = made.held_out_loss(batch)
    made.train()
    assert made.held_out_loss(batch) < before - 0.05
