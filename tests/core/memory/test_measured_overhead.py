"""What a GPU takes beside the tensors: as documented, until `doctor` has measured this card with this torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch.profiler import ProfilerActivity, profile

from core.catalogue.facts import cards, find_card
from core.memory import measured_overhead
from core.memory.device import GPU_EFFICIENCY, MEASURED_EFFICIENCY, of_card, this_machine
from core.memory.measured_overhead import MeasuredOverhead, constants_of, documented, work_as_a_step
from core.system import measured_card
from core.system.compute_dtype import dtype_of_card
from core.system.hardware import Device
from core.system.measured_card import keep

CARD = Device("cuda", "NVIDIA Test 4090", 24 * 2**30, 23 * 2**30)
ADA = (8, 9)


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measured_card, "FILE", tmp_path / "nibble-gpu.json")
    monkeypatch.setattr(measured_card, "cuda_driver", lambda: "580.1")


def test_what_was_measured_counts_and_until_then_what_is_documented() -> None:
    assert constants_of(CARD, ADA) == documented(ADA)
    assert not documented(ADA).measured
    keep(CARD, managed_memory=True)  # which says nothing of the memory
    assert constants_of(CARD, ADA) == documented(ADA)
    keep(CARD, context_bytes=420_000_000, workspace_bytes=9_000_000)
    assert constants_of(CARD, ADA) == MeasuredOverhead(420_000_000, 9_000_000, measured=True)
    assert this_machine(CARD, ADA).context_bytes == 420_000_000
    assert constants_of(replace(CARD, name="NVIDIA Other"), ADA) == documented(ADA)


def test_a_reading_that_somebody_else_has_spoilt_is_not_kept_and_the_rates_are(monkeypatch) -> None:
    monkeypatch.setattr(measured_overhead, "device", lambda: CARD)
    monkeypatch.setattr(measured_overhead, "cuda_capability", lambda index: ADA)
    monkeypatch.setattr(measured_overhead, "matrix_rates", lambda on, dtypes: dict.fromkeys(dtypes, 7e12))
    for context, kept in ((9 * 2**30, False), (400 * 2**20, True)):
        found = MeasuredOverhead(context, 9_000_000, measured=True)
        monkeypatch.setattr(measured_overhead, "measure", lambda card, found=found: found)
        assert ("context_bytes" in measured_overhead.main()) == kept
        assert constants_of(CARD, ADA).measured == kept
        assert measured_card.measured(CARD)["rates"] == {"bfloat16": 7e12, "float32": 7e12}


@pytest.mark.parametrize(("capability", "half"), [((6, 1), "float16"), ((7, 5), "float16"), ((8, 9), "bfloat16")])
def test_the_rates_are_those_that_the_choice_needs(monkeypatch, capability: tuple[int, int], half: str) -> None:
    monkeypatch.setattr(measured_overhead, "cuda_capability", lambda index: capability)
    monkeypatch.setattr(measured_overhead, "matrix_rates", lambda on, dtypes: dict.fromkeys(dtypes, 1.0))
    assert set(measured_overhead.rates(CARD)) == {half, "float32"}
    assert dtype_of_card(capability, CARD.name, measured_overhead.rates(CARD))[0] == half


def test_what_is_measured_is_a_small_step_that_every_device_can_do() -> None:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work_as_a_step("cpu")
    called = {event.key for event in seen.key_averages()}
    forwards = {"aten::scaled_dot_product_attention", "bitsandbytes::dequantize_4bit", "aten::mm", "aten::silu"}
    backwards = {"aten::silu_backward", "MmBackward0", "aten::_foreach_norm"}
    assert forwards | backwards <= called
    assert any(name.startswith("ScaledDotProduct") and name.endswith("Backward0") for name in called)


@pytest.mark.parametrize(
    ("name", "capability", "gib", "known"),
    [
        ("NVIDIA GeForce RTX 3060", (8, 6), 12, "rtx-3060-12gb"),
        ("NVIDIA GeForce RTX 4060 Ti", (8, 9), 16, "rtx-4060-ti-16gb"),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", (8, 9), 8, "rtx-4060-laptop-8gb"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", (8, 9), 16, "rtx-4070-ti-super-16gb"),
        ("NVIDIA A100-SXM4-80GB", (8, 0), 80, "a100-80gb"),
        ("Tesla T4", (7, 5), 15, "t4-16gb"),
        ("NVIDIA GeForce RTX 3050", (8, 6), 8, "rtx-3070-8gb"),  # not in the catalogue
    ],
)
def test_a_card_is_as_fast_as_the_one_of_its_name(name: str, capability: tuple[int, int], gib: int, known: str) -> None:
    card, here = find_card(known), this_machine(Device("cuda", name, gib * 2**30, 2**30), capability)
    assert (here.flops, here.bandwidth) == (of_card(card).flops, card.memory_bandwidth)
    assert here.total_bytes == gib * 2**30


@pytest.mark.parametrize(
    ("name", "capability", "gib", "like"),
    [("NVIDIA GeForce GTX 1660 SUPER", (7, 5), 6, "rtx-2060-6gb"), ("NVIDIA GeForce GTX 1080", (6, 1), 8, "1080-ti")],
)
def test_a_card_that_computes_in_fp32_is_as_fast_as_it_is_in_that(
    name: str, capability: tuple[int, int], gib: int, like: str
) -> None:
    here = this_machine(Device("cuda", name, gib * 2**30, 2**30), capability)
    known = next(card for card in cards().values() if like in card.name)
    assert here.dtype == "float32"
    assert here.flops == pytest.approx(known.flops_fp32 * GPU_EFFICIENCY)


def test_a_gtx_1080_ti_is_not_planned_fifty_times_too_slow() -> None:
    """11.3 TFLOP/s of fp32 on NVIDIA's page; 0.18 of fp16."""
    card = of_card(find_card("gtx-1080-ti-11gb"))
    assert card.dtype == "float32" and 4e12 < card.flops < 11.4e12


def test_measured_rates_go_before_what_is_known_of_a_card_like_it() -> None:
    before = this_machine(CARD, ADA)
    keep(CARD, rates={"bfloat16": 40e12, "float32": 20e12})
    here = this_machine(CARD, ADA)
    assert here.flops == pytest.approx(40e12 * MEASURED_EFFICIENCY) != before.flops
    assert here.bandwidth == before.bandwidth


def test_a_card_of_an_unknown_generation_has_a_guess() -> None:
    assert this_machine(Device("cuda", "NVIDIA Next", 2**35, 2**34), (19, 0)).flops > 0


def test_newer_cards_work_in_more() -> None:
    hopper, ada = documented((9, 0)), documented(ADA)
    threads = 2  # the one that calls, and the one that goes back
    assert hopper.workspace_bytes == threads * 32 * 2**20
    assert ada.workspace_bytes == threads * (2 * 4 * 2**20 + 8 * 16 * 2**10)
    assert of_card(find_card("rtx-4090-24gb")).workspace_bytes == ada.workspace_bytes
    assert this_machine(Device("cpu", "CPU", 2**34, 2**33), None).workspace_bytes == 0
