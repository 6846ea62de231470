"""The plan takes the fastest way that fits, is monotone in the budget, and says what would help where nothing fits."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from core.catalogue.facts import find_card, model_facts
from core.cli.main import main
from core.data.batches import MicroBatches, data_order
from core.errors import NibbleError
from core.memory.budget import Budget
from core.memory.device import PlanningDevice, of_card
from core.memory.estimate import Architecture, active_share, architecture_of, planning_problem, read_plan_budget
from core.memory.plan import Plan, plan
from core.memory.strategy import Strategy
from core.memory.trace import MicroBatch
from core.memory.workload import ConversationLength, Data, shape_of, work_of
from core.recipe import Recipe, make_recipe
from tests.core.data.rendered_rows import rendered_rows

MODEL = "smollm2-135m"
DRAW = random.Random(3)
LENGTHS = [ConversationLength(length, length // 2) for length in (DRAW.randint(20, 500) for _ in range(60))]


def _few_layers(model: str) -> Architecture:
    """So that a trace takes little time."""
    known = architecture_of(model)
    return replace(known, config={**known.config, "num_hidden_layers": 4})


def _plan(budget: int, **settings: object) -> Plan:
    recipe = make_recipe({"model": MODEL, "train.max_steps": 20, "train.effective_batch": 4, **settings})
    asked = planning_problem(recipe, of_card(find_card("rtx-4060-8gb")), _few_layers(MODEL), LENGTHS, True)
    return plan(replace(asked, budget=Budget(budget, f"{budget} bytes", 0)))


def test_a_bigger_budget_is_never_slower_and_a_smaller_one_never_takes_more() -> None:
    smallest = _plan(10**12).smallest_budget_bytes
    plans = [_plan(budget) for budget in range(smallest - 5 * 10**6, smallest + 3 * 10**8, 6 * 10**7)]
    assert plans[0].strategy is None and plans[-1].strategy is not None
    fitting = [found for found in plans if found.strategy is not None]
    assert len({found.strategy for found in fitting}) > 2
    for small, big in pairwise(fitting):
        assert big.seconds_per_step <= small.seconds_per_step
        assert small.peak.process <= big.peak.process <= big.budget_bytes
    assert _plan(smallest).strategy is not None
    assert _plan(smallest - 1).strategy is None


def test_what_a_person_fixed_stays_fixed() -> None:
    found = _plan(10**12, **{"train.micro_batch": 2, "train.gradient_checkpointing": "on"})
    chosen = found.as_json()["chosen"]
    assert (chosen["micro_batch"], chosen["accumulation"], chosen["checkpointing"]) == (2, 2, "full")
    assert [reason["because"][:10] for reason in found.reasons if reason["setting"] == "checkpointing"] == [
        "you set it"
    ]


@pytest.mark.parametrize("fixed", ["paged_adamw_32bit", "adamw"])
def test_an_optimizer_that_was_fixed_stays_and_auto_takes_8_bits_only_where_it_must(fixed: str) -> None:
    smallest = _plan(10**12).smallest_budget_bytes
    assert _plan(smallest).strategy.optimizer == "paged_adamw_8bit"
    assert _plan(10**12).strategy.optimizer == "paged_adamw_32bit"
    assert _plan(10**12, **{"train.optimizer": fixed}).strategy.optimizer == fixed
    assert _plan(smallest, **{"train.optimizer": fixed}).strategy is None


def test_each_lever_takes_less_memory_and_more_time() -> None:
    """Also on a model whose embeddings are not its head: they can wait in ordinary memory."""
    recipe = make_recipe({"model": "pythia-160m", "train.max_steps": 20, "train.effective_batch": 4})
    asked = planning_problem(recipe, of_card(find_card("rtx-4060-8gb")), _few_layers("pythia-160m"), LENGTHS, True)
    plain = Strategy(1, "full")
    for lever in ({"offload": True}, {"embeddings_in_ram": True}, {"optimizer": "paged_adamw_8bit"}):
        way = replace(plain, **lever)
        assert asked.peak(way).process < asked.peak(plain).process
        assert asked.seconds(way) > asked.seconds(plain)
    moved = asked.peak(plain).tensors - asked.peak(replace(plain, embeddings_in_ram=True)).tensors
    assert moved == 50_304 * 768 * 2


def test_what_is_moved_has_to_fit_ordinary_memory() -> None:
    """Of the most frugal plan: the inputs of layers, in blocks of powers of two, and the embeddings."""
    recipe = make_recipe({"model": "pythia-160m", "train.max_steps": 20, "train.effective_batch": 4})
    asked = planning_problem(recipe, of_card(find_card("rtx-4060-8gb")), _few_layers("pythia-160m"), LENGTHS, True)

    def planned(free_ram: int | None, budget: int = 10**12, unified: bool = False) -> Plan:
        target = replace(asked.target, free_ram=free_ram, unified=unified)
        return plan(replace(asked, target=target, budget=Budget(budget, "so much", 0)))

    all_moved, in_ram = planned(None), 50_304 * 768 * 2
    width = asked.work(1).largest.packs * asked.work(1).largest.width
    a_layer = 1 << (width * 768 * 2 - 1).bit_length()
    frugal = asked.peak(Strategy(1, "full", "paged_adamw_8bit", offload=True, embeddings_in_ram=True)).traced
    assert in_ram + 4 * a_layer <= frugal.moved <= in_ram + 8 * a_layer
    enough = int(frugal.moved / 0.8) + 1
    smallest = all_moved.smallest_budget_bytes
    assert planned(enough, smallest).strategy == planned(None, smallest).strategy
    assert planned(enough, smallest).strategy.offload
    short = planned(enough - 10**6, smallest)
    assert short.strategy is None and "ordinary memory" in short.reasons[0]["because"]
    without = planned(enough - 10**6, short.smallest_budget_bytes).strategy
    assert not without.offload and without.embeddings_in_ram, "the embeddings still have room there"
    nothing = planned(in_ram, planned(in_ram).smallest_budget_bytes).strategy
    assert not nothing.offload and not nothing.embeddings_in_ram
    shared = planned(None, planned(None, unified=True).smallest_budget_bytes, unified=True).strategy
    assert not shared.offload and not shared.embeddings_in_ram, "a card that uses the machine's memory frees none so"


def test_segments_that_do_not_grow_cost_more() -> None:
    card = of_card(find_card("rtx-4060-8gb"))
    growing, fixed = (replace(card, segments_grow=grow).reserved(4 * 2**30) for grow in (True, False))
    assert 4 * 2**30 < growing < fixed < 5 * 2**30


def test_the_breakdown_adds_up_to_the_process() -> None:
    for budget in (10**12, 10**6):
        found = _plan(budget).as_json()
        assert sum(found["breakdown"].values()) == found["peak_bytes"]["process"]
        assert found["peak_bytes"]["tensors"] <= found["peak_bytes"]["process"]


def test_where_nothing_fits_it_says_what_would() -> None:
    found = _plan(10**8).as_json()
    assert found["fits"] is False and found["chosen"] is None
    assert 1 <= len(found["ways"]) <= 3
    enough = next(way for way in found["ways"] if way["change"].startswith("budget="))
    assert enough["fits"] and enough["peak_bytes"] == found["smallest_budget_bytes"]
    assert _plan(found["smallest_budget_bytes"]).strategy is not None


@pytest.mark.parametrize("packed", [True, False])
def test_the_largest_micro_batch_is_the_largest_that_the_trainer_gets(packed: bool) -> None:
    lengths = [DRAW.randint(5, 300) for _ in range(40)]
    rows = rendered_rows(*lengths)
    order = data_order(40, 10, 8, seed=5)
    batches = MicroBatches(rows, order, 4, packed)
    real = [MicroBatch.of(batches[index]) for index in range(len(batches))]
    data = Data([ConversationLength(length, length - 1) for length in lengths], 10, 8, 5)
    parts, steps = data.parts(4, 512, packed)
    assert [shape_of(part, packed) for part in parts] == real
    work = work_of(parts, steps, packed)
    assert work.largest.packs * work.largest.width == max(each.packs * each.width for each in real)
    assert work.tokens_a_step == sum(each.packs * each.width for each in real) / 10


@pytest.mark.parametrize(("text", "size"), [("8", 8 * 2**30), ("8GB", 8 * 10**9), ("8 GiB", 8 * 2**30), ("80%", None)])
def test_a_budget_says_how_it_was_read(text: str, size: int | None) -> None:
    card = of_card(find_card("rtx-4060-8gb"))
    read = read_plan_budget(Recipe(budget=text), card)
    assert read.bytes == (size or int(card.total_bytes * 0.8))
    assert read.read_as.startswith(f"{text} = ")


@pytest.mark.parametrize("text", ["0", "-1", "much", "0%", "8 apples"])
def test_a_budget_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(NibbleError, match="budget"):
        read_plan_budget(Recipe(budget=text), of_card(find_card("rtx-4060-8gb")))


@pytest.mark.parametrize(
    ("recipe", "budget", "fits"),
    [("guanaco-7b", "12GB", True), ("guanaco-13b", "20GB", True), ("quickstart", "8GB", True)],
)
def test_the_command_prints_the_contract(
    recipe: str, budget: str, fits: bool, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["plan", recipe, "--card", "a6000-48gb", "--budget", budget, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (status, found["fits"]) == (int(not fits), fits)
    assert set(found) >= {
        "fits", "budget_bytes", "peak_bytes", "breakdown", "chosen", "reasons", "assumed", "seconds_per_step",
        "smallest_budget_bytes", "ways",
    }  # fmt: skip
    assert set(found["breakdown"]) >= {
        "weights", "quant_constants", "adapters", "gradients", "optimizer", "activations", "logits", "workspace",
        "context",
    }  # fmt: skip


def test_an_unknown_card_is_refused_with_what_is_near(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "quickstart", "--card", "rtx-4090", "--json"]) == 1
    assert "rtx-4090-24gb" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.full
def test_a_mixture_of_experts_is_planned_with_its_experts_in_four_bits(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--set", "model=qwen3-30b-a3b", "--set", "lora.targets=attention", "--card", "rtx-4090-24gb"]
    assert main(["plan", "quickstart", *asked, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["fits"]
    in_four_bits = 30_532_122_624 / 2
    assert in_four_bits < said["peak_bytes"]["tensors"] < 1.6 * in_four_bits


def test_a_token_meets_the_experts_that_are_chosen_for_it() -> None:
    known = model_facts()["qwen3-30b-a3b"]
    met = active_share(known.config, known.parameters)
    assert met * known.parameters == pytest.approx(3.3e9, rel=0.02), "as published"
    assert active_share(model_facts()["smollm2-135m"].config, 1) == 1


def test_what_cannot_be_traced_is_said_so(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks_at_values(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr("core.memory.traces.trace", looks_at_values)
    asked = ["plan", "quickstart", "--set", "model=smollm2-135m", "--card", "a6000-48gb", "--set", "lora.rank=7"]
    status = main([*asked, "--json"])
    said = json.loads(capsys.readouterr().out)["error"]
    assert status == 1
    assert "cannot be traced" in said


def test_with_several_devices_each_is_planned_its_share() -> None:
    one, two = (_plan(10**12, **{"train.devices": devices, "train.micro_batch": 1}) for devices in (1, 2))
    assert (one.accumulation, two.accumulation) == (4, 2)
    assert two.seconds_per_step < one.seconds_per_step
    lengths = [each.length for each in LENGTHS]
    shares = Data(LENGTHS, 3, 4, 0, devices=2).parts(2, 512, True)[0]
    for step, rows in enumerate(data_order(len(LENGTHS), 3, 4, 0)):
        longest_first = sorted(rows, key=lambda row: (-lengths[row], row))
        dealt = [[LENGTHS[row] for row in longest_first[rank::2]] for rank in (0, 1)]
        assert shares[2 * step : 2 * step + 2] == dealt


def _planned_for(target: PlanningDevice, model: str, **settings: object) -> Plan:
    recipe = make_recipe({"model": model, "train.max_steps": 2, "train.effective_batch": 4, **settings})
    return plan(planning_problem(recipe, target, _few_layers(model), LENGTHS, True))


@pytest.mark.parametrize(
    ("card", "model", "dtype", "because"),
    [
        ("t4-16gb", "gemma-3-1b", "float32", "gemma3_text models overflow in fp16"),
        ("t4-16gb", "smollm2-135m", None, ""),
        ("gtx-1080-ti-11gb", "smollm2-135m", "float32", "1/64"),
        ("rtx-4060-8gb", "gemma-3-1b", None, ""),
    ],
)
def test_a_plan_that_computes_in_fp32_on_a_gpu_says_why(card: str, model: str, dtype: str | None, because: str) -> None:
    reasons = _planned_for(of_card(find_card(card)), model).reasons
    said = [(each["value"], each["because"]) for each in reasons if each["setting"] == "compute_dtype"]
    assert [value for value, _ in said] == ([dtype] if dtype else [])
    assert because in (said[0][1] if said else "")


def test_what_is_not_quantised_takes_twice_as_much_in_fp32() -> None:
    """Gemma's embedding, 262,144 x 1,152, which is its head, too."""
    cards = [of_card(find_card(name)) for name in ("rtx-4060-8gb", "t4-16gb")]
    half, full = (_planned_for(card, "gemma-3-1b").peak.traced.resting["weights"] for card in cards)
    assert full - half == pytest.approx(2 * 262_144 * 1152, rel=0.001)


@pytest.mark.parametrize("optimizer", ["auto", "paged_adamw_32bit"])
def test_on_a_card_without_managed_memory_the_states_are_torchs_and_it_is_said(optimizer: str) -> None:
    card = of_card(find_card("rtx-4060-8gb"))
    settings = {"train.optimizer": optimizer, "lora.rank": 256}
    paged, unpaged = (_planned_for(each, MODEL, **settings) for each in (card, replace(card, pages=False)))
    assert paged.peak.traced.managed > 0 and unpaged.peak.traced.managed == 0
    assert unpaged.peak.tensors > paged.peak.tensors
    said = [each["because"] for each in unpaged.reasons if each["setting"] == "paging"]
    assert said == ["CUDA refuses managed memory on this card, so the optimizer's states stay in the card's own"]
    assert not [each for each in paged.reasons if each["setting"] == "paging"]
