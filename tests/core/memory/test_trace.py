"""The traced step is the counted one: weights to the byte, the peak of a real NF4 run within one percent."""

from __future__ import annotations

import logging
import random
import warnings
from dataclasses import replace

import pytest
import torch

from bench.memory import draw_case, measure
from core.catalogue.facts import model_facts
from core.data.batches import packed_batch, padded_batch
from core.errors import ModelError
from core.memory.activation_offload import ON_THEIR_WAY
from core.memory.extrapolate import traced_at_depth
from core.memory.meta_model import meta_model
from core.memory.tensor_counter import GRAIN, Counter
from core.memory.trace import MicroBatch, Traced, trace
from core.recipe import LoraSettings, QuantizationSettings
from core.step.optimizer import OPTIMIZERS
from tests.core.data.rendered_rows import rendered_rows
from tests.in_full import in_full


@pytest.mark.parametrize(
    ("architecture", "seed"),
    [("llama", 11), in_full("gemma2", 12), in_full("opt", 13), in_full("qwen3", 14), ("qwen3_moe", 15)],
)
def test_the_peak_of_a_real_run_is_the_traced_one(architecture: str, seed: int) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        measured = measure(draw_case(architecture, random.Random(seed)))
    finally:
        logging.disable(logging.NOTSET)
    assert abs(measured.error_percent) <= 1.0
    for category in ("weights", "quant_constants", "adapters"):
        assert measured.traced_model[category] == measured.counted_model[category]


@pytest.mark.parametrize(
    ("architecture", "more"),
    [
        ("granite", {"logits_scaling": 8.0}),
        ("cohere", {"logit_scale": 0.25}),
        in_full("gemma2", {"final_logit_softcapping": 5.0, "head_dim": 16, "query_pre_attn_scalar": 16}),
        in_full("bert", {"is_decoder": True}),  # its head is of a kind of its own
    ],
)
def test_so_it_is_whatever_the_head_does(architecture: str, more: dict[str, object]) -> None:
    """A vocabulary so large that the logits are most of the peak."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        case = draw_case(architecture, random.Random(31))
        measured = measure(replace(case, config={**case.config, "vocab_size": 50_000, **more}))
    finally:
        logging.disable(logging.NOTSET)
    assert abs(measured.error_percent) <= 1.0


@pytest.mark.parametrize("fused", [True, in_full(False)], ids=["fused", "PEFT's"])
@pytest.mark.parametrize("adapters", ["bfloat16", in_full("float32")])
@pytest.mark.parametrize(
    ("architecture", "seed"), [("llama", 21), ("gpt_neox", 22), in_full("opt", 23), in_full("qwen3_moe", 24)]
)
def test_so_it_is_for_a_run_in_16_bits(architecture: str, seed: int, adapters: str, fused: bool) -> None:
    """As on a GPU: the adapters in bf16 too or in fp32, with norms that keep the model's dtype and with torch's own."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        measured = measure(draw_case(architecture, random.Random(seed)), "bfloat16", adapters, fused)
    finally:
        logging.disable(logging.NOTSET)
    assert abs(measured.error_percent) <= 1.0
    for category in ("weights", "quant_constants", "adapters"):
        assert measured.traced_model[category] == measured.counted_model[category]


def _trace(config: dict, checkpointing: str = "off", device: str = "cuda", offload: bool = False) -> Traced:
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = meta_model(config, QuantizationSettings(), LoraSettings(rank=256), dtype, dtype)
    return trace(model, [MicroBatch(1, 128, 100)] * 2, device, OPTIMIZERS["paged_adamw_32bit"], checkpointing, offload)


@pytest.mark.parametrize("checkpointing", ["off", "half", "full", "full, offloaded"])
@pytest.mark.parametrize("name", [in_full("smollm2-135m"), "pythia-160m"])
def test_a_step_carried_on_from_shallow_ones_is_the_whole_models(name: str, checkpointing: str) -> None:
    config = model_facts()[name].config
    mode, _, offload = checkpointing.partition(", ")
    every, least = 2 if mode == "half" else 1, ON_THEIR_WAY if offload else 1
    carried, was_carried = traced_at_depth(config, lambda one: _trace(one, mode, offload=bool(offload)), every, least)
    assert was_carried
    whole = _trace(config, mode, offload=bool(offload))
    assert carried.resting == whole.resting
    for phase, real in zip(carried.phases, whole.phases, strict=True):
        # The norms of all gradients share one storage, which is rounded up once.
        assert all(abs(phase.at_peak[key] - real.at_peak[key]) <= GRAIN for key in real.at_peak)
    assert carried.peak == whole.peak
    assert carried.managed == whole.managed > 0


def test_layers_that_are_not_alike_are_traced_whole() -> None:
    """One layer in the middle with wider experts: what three shallow models say would not hold for it."""
    config = {**model_facts()["smollm2-135m"].config, "num_hidden_layers": 12}
    depths: list[int] = []

    def uneven(one: dict) -> Traced:
        depths.append(one["num_hidden_layers"])
        found = _trace({**one, "num_hidden_layers": 1})
        return Traced(found.phases, {**found.resting, "weights": found.resting["weights"] + depths[-1] ** 2})

    _, was_carried = traced_at_depth(config, uneven)
    assert not was_carried
    assert depths[-1] == 12


def test_layers_of_two_kinds_are_carried_on_by_their_pattern() -> None:
    facts = model_facts()["gemma-2-2b"].config
    config = {
        **facts,
        "num_hidden_layers": 12,
        "vocab_size": 1000,
        "layer_types": (facts.get("layer_types") or [])[:12],
    }
    config = {key: value for key, value in config.items() if value != []}
    carried, was_carried = traced_at_depth(config, _trace)
    assert was_carried
    assert carried.peak == _trace(config).peak


def test_checkpointing_saves_activations_and_half_of_it_less() -> None:
    config = {**model_facts()["smollm2-135m"].config, "num_hidden_layers": 6}
    off, half, full = (_trace(config, mode).peak for mode in ("off", "half", "full"))
    assert full < half < off


def test_every_byte_is_in_one_category_and_none_is_below_zero() -> None:
    traced = _trace(model_facts()["pythia-160m"].config, "full", "cpu")
    for phase in traced.phases:
        assert phase.peak == sum(phase.at_peak.values())
        assert min(phase.at_peak.values()) >= 0
    between = {name for name, size in traced.resting.items() if size}
    assert between == {"weights", "quant_constants", "adapters", "optimizer"}


def test_a_storage_counts_once_and_until_its_last_view_is_gone() -> None:
    with Counter() as counter:
        first = torch.zeros(1000)
        view = first[10:]
        assert counter.now == 4096  # 4,000 bytes in grains of 512
        del first
        assert counter.now == 4096
        del view
        assert counter.now == 0
    assert counter.peak == 4096


def test_the_shape_of_a_batch_is_read_off_the_batch() -> None:
    assert MicroBatch.of(packed_batch(rendered_rows(100))) == MicroBatch(1, 100, 99, True, plain=True)
    assert MicroBatch.of(packed_batch(rendered_rows(60, 50))) == MicroBatch(1, 110, 108, True, plain=False)
    assert MicroBatch.of(padded_batch(rendered_rows(9, 4))) == MicroBatch(2, 9, 11, False, plain=False)
    assert MicroBatch.of(padded_batch(rendered_rows(9, 9))) == MicroBatch(2, 9, 16, False, plain=True)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "no-such-thing"},
        {"model_type": "llama", "num_attention_heads": 0},
        {"model_type": "llama", "hidden_size": "wide"},
    ],
)
def test_a_config_that_cannot_be_built_is_refused_in_a_sentence(config: dict) -> None:
    with pytest.raises(ModelError, match="cannot be built"):
        meta_model(config, QuantizationSettings(), LoraSettings(), torch.float32, torch.float32)


@pytest.mark.full
def test_offload_takes_what_the_layers_keep_but_for_the_last_few() -> None:
    """Full checkpointing keeps each layer's input; with offload those of a few layers are on the device at once."""
    config = model_facts()["smollm2-135m"].config
    kept, moved = (_trace(config, "full", offload=offload).highest.at_peak["activations"] for offload in (False, True))
    a_layer = 128 * config["hidden_size"] * 2
    saved = (kept - moved) / a_layer
    assert config["num_hidden_layers"] - 2 * ON_THEIR_WAY <= saved < config["num_hidden_layers"]
