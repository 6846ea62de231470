"""The measurement of the fused layer, on a tiny model on the CPU; and what of it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import _fused
from core.step.fused_gain import read_gain
from core.system.hardware import Device
from core.workspace import Workspace
from tests.bench.test_gpu import CONFIG

HERE = Device("cpu", "CPU", 2**34, 2**33)


def test_both_layers_run_and_are_compared_at_each_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.step.fused_lora import QuantisedLora

    passes: list[int] = []
    real = QuantisedLora.apply
    monkeypatch.setattr(QuantisedLora, "apply", lambda x, *rest: passes.append(len(x)) or real(x, *rest))
    monkeypatch.setattr(_fused, "TOKENS", (16, 40))
    found = _fused.ratios(CONFIG, HERE, rounds=2)
    assert found.keys() == {16, 40} and min(found.values()) > 0
    # A round to warm up and two that count, of one model of the two, with seven layers in each of two blocks.
    each = 3 * _fused.PASSES * 2 * 7
    assert (passes.count(16), passes.count(40)) == (each, each)


def test_the_smallest_ratio_is_what_a_run_goes_by(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    rows = _fused.remember(workspace, "NVIDIA A", "bfloat16", {"512": 1.3, "2048": 1.07})
    assert [(each["value"], each["reference"], each["holds"]) for each in rows] == [(1.3, 1.0, None), (1.07, 1.0, None)]
    assert rows[0]["name"] == "fused LoRA layer (used from now on) against PEFT's, 512 tokens"
    gain = read_gain(workspace, "NVIDIA A")
    assert gain is not None and gain.times == 1.07
    rows = _fused.remember(workspace, "NVIDIA A", "bfloat16", {"512": 0.98, "2048": 1.07})
    assert rows[1]["name"] == "fused LoRA layer (not used) against PEFT's, 2048 tokens"


def test_without_a_gpu_there_is_nothing_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fused, "device", lambda: HERE)
    assert _fused.rows() == []
