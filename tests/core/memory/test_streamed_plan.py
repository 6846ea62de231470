"""What streamed layers free and take in a plan: by a count of a model's matrices, not by the code that streams."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.catalogue.facts import find_card
from core.memory.budget import Budget
from core.memory.device import of_card
from core.memory.estimate import Architecture, architecture_of, planning_problem
from core.memory.meta_model import meta_model
from core.memory.plan import Plan, plan
from core.memory.problem import PlanningProblem
from core.memory.trace import MicroBatch
from core.memory.traces import tracer
from core.memory.workload import ConversationLength
from core.model.stream.layers import streamable
from core.recipe import LoraSettings, QuantizationSettings, make_recipe

# Llama 3.3 70B: hidden, inner, and the width of keys and values; ../../../docs and the paper give 80 layers.
HIDDEN, INNER, KV, LAYERS = 8192, 28672, 1024, 80
MATRICES = [HIDDEN * HIDDEN] * 2 + [HIDDEN * KV] * 2 + [HIDDEN * INNER] * 3
SMALL = Architecture(
    "a Llama of 12 layers",
    {
        "model_type": "llama",
        "vocab_size": 600,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 12,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    8_000_000,
    False,
)


def rounded(size: float, grain: int) -> int:
    """Up to a multiple of `grain`."""
    return int(-(-size // grain) * grain)


def nf4(numbers: int, double: bool) -> list[int]:
    """Bytes of a matrix and its constants in NF4 (QLoRA, section 3): blocks of 64, theirs of 256 in 8 bits."""
    blocks = numbers // 64
    return [numbers // 2, blocks, rounded(blocks / 256, 1) * 4] if double else [numbers // 2, blocks * 4]


@pytest.mark.parametrize("double", [True, False])
def test_a_layer_of_a_70b_is_as_large_as_its_matrices(double: bool) -> None:
    known = architecture_of("llama-3.3-70b")
    config = {**known.config, "num_hidden_layers": 1}
    quantization = QuantizationSettings(double=double)
    model = meta_model(config, quantization, LoraSettings(), torch.bfloat16, torch.bfloat16)
    (layer,) = streamable(model)
    expected = sum(rounded(part, 512) for each in MATRICES for part in nf4(each, double))
    assert layer.block.bytes == rounded(expected, 4096)
    assert not double or layer.block.bytes / 1e6 == pytest.approx(441, abs=1)  # ../shared/streaming/estimates.txt


def problem(**settings: object) -> PlanningProblem:
    """The small model on a card that is not here."""
    recipe = make_recipe({"train.max_steps": 20, "train.effective_batch": 4, **settings})
    lengths = [ConversationLength(300, 200)] * 8
    return planning_problem(recipe, of_card(find_card("rtx-4060-8gb")), SMALL, lengths, True)


def planned(**settings: object) -> Plan:
    """Its plan."""
    return plan(replace(problem(**settings), budget=Budget(10**12, "all", 0)))


BLOCK = sum(rounded(part, 512) for numbers in [256 * 256] * 4 + [256 * 512] * 3 for part in nf4(numbers, True))


def test_a_plan_takes_less_by_the_streamed_layers_less_two_slots() -> None:
    resident, streamed = planned(), planned(**{"train.streamed_layers": 9})
    assert resident.strategy is not None
    assert streamed.strategy == replace(resident.strategy, streamed_layers=9, streamed_from="ram")
    slot = rounded(BLOCK, 4096)
    assert streamed.peak.breakdown["slots"] == 2 * slot
    before_it, *after_it = streamed.peak.traced.phases
    phases = zip(resident.peak.traced.phases, after_it, strict=True)
    for before, after in phases:
        freed = 0 if before.name == "loading" else 9 * BLOCK - 2 * slot
        assert before.peak - after.peak == freed
    resting = resident.peak.traced.resting
    whole = resting["weights"] + resting["quant_constants"] + resting["adapters"]
    assert (before_it.name, before_it.peak) == ("resident", whole + 256 * 512 * 2), "all of it, and one matrix in bf16"
    assert streamed.peak.traced.moved - resident.peak.traced.moved == 9 * slot
    chosen = streamed.as_json()["chosen"]
    assert (chosen["streamed_layers"], chosen["streamed_from"]) == (9, "ram")
    assert (resident.as_json()["chosen"]["streamed_layers"], "slots" in resident.peak.breakdown) == (0, False)


def test_layers_of_a_deep_model_are_all_counted_though_few_were_traced() -> None:
    config = {**SMALL.config, "num_hidden_layers": 20}
    traced = tracer(config, "cuda", "bfloat16")(make_recipe({}), [MicroBatch(1, 64, 32)], "full", False)
    assert len(traced.layers) == 20 and {each.weights + each.constants for each in traced.layers} == {BLOCK}


def test_more_layers_than_there_are_are_all_of_them() -> None:
    traced = problem().peak(planned().strategy).traced
    assert traced.with_streamed(99, True) == traced.with_streamed(12, True)


def test_what_waits_in_memory_has_to_fit_there() -> None:
    asked = problem(**{"train.streamed_layers": 12})
    here = replace(asked.target, is_this_machine=True, free_ram=12 * BLOCK // 2)
    rich = plan(replace(asked, budget=Budget(10**12, "all", 0)))
    poor = plan(replace(asked, target=here, budget=Budget(10**12, "all", 0)))
    assert rich.strategy is not None and rich.strategy.streamed_from == "ram"
    assert poor.strategy == replace(rich.strategy, streamed_from="disk")
    assert poor.peak.process == rich.peak.process and poor.peak.traced.moved == 0
    (why,) = [each["because"] for each in poor.reasons if each["setting"] == "streamed_layers"]
    assert why.endswith("wait in a file, and visit two slots of 1 MiB in all; ordinary memory has no room for them")
