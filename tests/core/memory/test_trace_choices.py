"""What a person may choose is in the trace: bits, DoRA, extra modules, targets, Lion, against real runs counted."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import pytest
import torch

from bench.memory import Case, measure
from core.memory.meta_model import meta_model
from core.memory.trace import MicroBatch, OptimizerStates, trace
from core.memory.traces import tracer
from core.recipe import LoraSettings, QuantizationSettings, make_recipe
from core.step.optimizer import OPTIMIZERS

CONFIG = {
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 3,
}


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("llama", {"quantization.bits": 8}),
        ("gpt_neox", {"quantization.bits": 16, "lora.targets": "q_v", "lora.dropout": 0.1}),
        ("llama", {"lora.dora": True}),
        ("llama", {"lora.dropout": 0.1, "train.gradient_checkpointing": "on"}),
        ("qwen3", {"lora.dropout": 0.1, "lora.scaling": "rank_stabilised"}),
        ("llama", {"lora.extra_modules": ["embeddings", "head"], "train.gradient_checkpointing": "on"}),
        ("phi3", {"lora.targets": "attention", "lora.init": "pissa", "train.neftune_alpha": 5}),
    ],
    ids=str,
)
def test_a_real_runs_peak_is_the_traced_one(architecture: str, settings: dict[str, Any]) -> None:
    values = {"lora.rank": 4, "train.effective_batch": 4, "train.gradient_checkpointing": "off", **settings}
    case = Case({"model_type": architecture, **CONFIG}, make_recipe(values), [40, 30, 40, 35], 2)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        measured = measure(case)
    finally:
        logging.disable(logging.NOTSET)
    assert abs(measured.error_percent) <= 1.0
    for category in ("weights", "quant_constants", "adapters"):
        assert measured.traced_model[category] == measured.counted_model[category]


@pytest.mark.parametrize("name", ["paged_lion_32bit", "paged_lion_8bit", "paged_adamw_32bit", "paged_adamw_8bit"])
def test_an_optimizers_states_are_as_large_as_the_real_ones(name: str) -> None:
    from bitsandbytes.optim import AdamW, Lion

    parameters = [torch.nn.Parameter(torch.zeros(96, 64)), torch.nn.Parameter(torch.zeros(8, 64))]
    kind = Lion if "lion" in name else AdamW
    real = kind(parameters, optim_bits=8 if "8bit" in name else 32)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    real.step()
    states = [each for parameter in parameters for key, each in real.state[parameter].items() if "qmap" not in key]
    expected = sum(each.nbytes for each in states if torch.is_tensor(each))
    traced = OptimizerStates(OPTIMIZERS[name], "cuda", torch.nn.ParameterList(parameters))
    traced.step()
    assert sum(each.nbytes for each in traced.made) == expected


def test_eager_attention_keeps_its_scores_which_grow_with_the_square_of_the_length() -> None:
    def peak(attention: str, length: int) -> int:
        config = {"model_type": "llama", **CONFIG}
        model = meta_model(config, QuantizationSettings(), LoraSettings(), torch.float32, torch.float32, attention)
        return trace(model, [MicroBatch(1, length, 100)], "cpu", OPTIMIZERS["adamw"], "off").peak

    short, long = (peak("eager", length) - peak("auto", length) for length in (400, 800))
    assert short > 2 * 400 * 400 * 4  # heads x tokens x tokens x fp32, of one layer
    assert long > 3.5 * short
    assert peak("sdpa", 200) == peak("auto", 200)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_fewer_bits_take_less(bits: int) -> None:
    def weights(bits: int) -> int:
        config = {"model_type": "llama", **CONFIG}
        model = meta_model(config, QuantizationSettings(bits=bits), LoraSettings(), torch.bfloat16, torch.bfloat16)
        return trace(model, [MicroBatch(1, 32, 30)], "cuda", OPTIMIZERS["paged_adamw_32bit"], "off").resting["weights"]

    linear = 2 * (4 * 64 * 64 + 3 * 64 * 128)
    rest = weights(16) - 2 * linear
    assert weights(bits) == rest + linear * bits // 8


def test_a_layer_that_is_named_by_its_number_is_found_in_a_deep_model() -> None:
    config = {"model_type": "llama", **CONFIG, "num_hidden_layers": 9}
    recipe = make_recipe({"lora.targets": ["model.layers.8.self_attn.q_proj"]})
    traced = tracer(config, "cpu", "float32")(recipe, [MicroBatch(1, 32, 30)], "off", False)
    assert traced.resting["adapters"] == 2 * 16 * 64 * 4
