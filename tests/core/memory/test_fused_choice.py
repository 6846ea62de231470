"""A GPU uses the fused LoRA layer where it was measured to be faster there; a person is told why or why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.catalogue.facts import find_card, model_facts
from core.memory import estimate
from core.memory.device import PlanningDevice, of_card, this_machine
from core.memory.estimate import Architecture, planning_problem, target_for
from core.memory.fused_choice import fused_choice
from core.memory.plan import Plan, plan
from core.memory.workload import ConversationLength
from core.recipe import make_recipe
from core.step.fused_gain import FusedGain, keep_gain, read_gain
from core.system.hardware import Device
from core.workspace import Workspace

GPU = Device("cuda", "NVIDIA GeForce RTX 3060", 12 * 2**30, 11 * 2**30)
MODEL = model_facts()["smollm2-135m"]
UNKNOWN = "whether it is faster on this GPU has not been measured; `python launch.py bench train` measures it"


def _here(times: float | None, tmp_path: Path, **changes: Any) -> PlanningDevice:
    """This machine with that GPU, of which `times` was measured."""
    workspace = Workspace(tmp_path)
    if times is not None:
        keep_gain(workspace, GPU.name, "bfloat16", times)
    gain = read_gain(workspace, GPU.name)
    return replace(this_machine(GPU, (8, 6)), fused_gain=gain and replace(gain, **changes))


def _plan(target: PlanningDevice, **settings: Any) -> Plan:
    recipe = make_recipe({"model": "smollm2-135m", "train.max_steps": 2, "train.effective_batch": 2, **settings})
    shallow = Architecture(MODEL.title, {**MODEL.config, "num_hidden_layers": 2}, MODEL.parameters, False)
    return plan(planning_problem(recipe, target, shallow, [ConversationLength(60, 50)] * 4, True))


def _told(found: Plan) -> list[tuple[Any, str]]:
    return [(each["value"], each["because"]) for each in found.reasons if each["setting"] == "train.fused_lora"]


def test_a_gpu_that_was_not_measured_takes_the_known_path_and_says_how_to_measure(tmp_path: Path) -> None:
    found = _plan(_here(None, tmp_path))
    assert found.strategy is not None and not found.strategy.fused_lora
    assert found.as_json()["chosen"]["fused_lora"] is False
    assert _told(found) == [("off", UNKNOWN)]


@pytest.mark.parametrize(("times", "on"), [(1.12, True), (1.0, False), (0.9, False)])
def test_a_gain_that_was_measured_decides_and_is_named(tmp_path: Path, times: float, on: bool) -> None:
    found = _plan(_here(times, tmp_path))
    assert found.strategy is not None and found.strategy.fused_lora is on
    because = f"`python launch.py bench train` measured {times:.2f} times the speed of PEFT's own layer on this GPU"
    assert _told(found) == [("on" if on else "off", because)]


def test_what_was_measured_with_another_torch_or_in_another_dtype_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.step.fused_gain._versions", lambda: ("3.0", "2.0"))
    found = _plan(_here(1.5, tmp_path, torch="1.0"))
    assert found.strategy is not None and not found.strategy.fused_lora
    measured = "it was measured on this GPU with torch 1.0 and bitsandbytes 2.0, which no longer holds"
    assert _told(found) == [("off", f"{measured}; `python launch.py bench train` measures it again")]
    found = _plan(_here(1.5, tmp_path, computing="float16"))
    assert found.strategy is not None and not found.strategy.fused_lora
    assert _told(found) == [("off", "it was measured on this GPU in float16, and this run computes in bfloat16")]


@pytest.mark.parametrize("wanted", ["on", "off"])
def test_what_a_person_sets_holds_measured_or_not(tmp_path: Path, wanted: str) -> None:
    for times in (None, 1.5, 0.5):
        found = _plan(_here(times, tmp_path), **{"train.fused_lora": wanted})
        assert found.strategy is not None and found.strategy.fused_lora is (wanted == "on")
        assert _told(found) == [(wanted, "you set it")]


@pytest.mark.parametrize(
    "settings", [{"lora.dora": True}, {"quantization.bits": 8}, {"quantization.bits": 16}], ids=str
)
def test_where_there_is_nothing_to_fuse_only_who_asked_for_it_is_told(tmp_path: Path, settings: dict[str, Any]) -> None:
    here = _here(1.5, tmp_path)
    assert fused_choice(make_recipe(settings), here) == (False, "")
    fused, because = fused_choice(make_recipe({**settings, "train.fused_lora": "on"}), here)
    assert not fused
    assert because == "only a base in 4 bits without DoRA, on a CPU or an NVIDIA GPU, can be computed in one pass"


def test_a_cpu_uses_it_always_and_a_card_that_is_only_planned_for_never(tmp_path: Path) -> None:
    cpu = this_machine(Device("cpu", "CPU", 2**34, 2**33), None)
    assert fused_choice(make_recipe({}), cpu) == (True, "")
    assert fused_choice(make_recipe({"train.fused_lora": "off"}), cpu) == (False, "you set it")
    assert fused_choice(make_recipe({}), of_card(find_card("rtx-4090-24gb"))) == (False, "")
    apple = this_machine(Device("mps", "Apple arm64", 2**34, 2**33), None)
    assert fused_choice(make_recipe({}), apple) == (False, "")


def test_the_plan_counts_the_layer_that_runs(tmp_path: Path) -> None:
    """The fused one shares the memory of the largest weight (1,536 x 576 in bf16) and copies no result."""
    settings = {"train.micro_batch": 1, "train.gradient_checkpointing": "off", "lora.dropout": 0.1}
    theirs = _plan(_here(None, tmp_path), **settings).peak.traced
    ours = _plan(_here(1.5, tmp_path), **settings).peak.traced
    assert ours.resting["workspace"] - theirs.resting["workspace"] == 1536 * 576 * 2
    assert ours.highest.at_peak["activations"] < theirs.highest.at_peak["activations"]


def test_what_is_kept_in_a_workspace_is_read_for_this_machines_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    keep_gain(workspace, GPU.name, "bfloat16", 1.3)
    monkeypatch.setattr(estimate, "device", lambda: GPU)
    monkeypatch.setattr(estimate, "cuda_capability", lambda index: (8, 6))
    gain = target_for(None, workspace).fused_gain
    assert isinstance(gain, FusedGain) and gain.times == 1.3
    assert target_for(None).fused_gain is None
    assert target_for("rtx-3060-12gb", workspace).fused_gain is None
