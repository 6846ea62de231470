"""What a GPU takes beside the tensors: as documented, until `doctor` has measured this card with this torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch.profiler import ProfilerActivity, profile

from core.catalogue.facts import find_card
from core.memory import measured_overhead
from core.memory.device import of_card, this_machine
from core.memory.measured_overhead import MeasuredOverhead, constants_of, documented, keep, work_as_a_step
from core.system.hardware import Device

CARD = Device("cuda", "NVIDIA Test 4090", 24 * 2**30, 23 * 2**30)
ADA = (8, 9)


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measured_overhead, "FILE", tmp_path / "nibble-gpu.json")
    monkeypatch.setattr(measured_overhead, "cuda_driver", lambda: "580.1")


def test_what_was_measured_counts_until_card_driver_or_torch_is_another(monkeypatch) -> None:
    assert constants_of(CARD, ADA) == documented(ADA)
    assert not documented(ADA).measured
    keep(CARD, MeasuredOverhead(420_000_000, 9_000_000, measured=True))
    assert constants_of(CARD, ADA) == MeasuredOverhead(420_000_000, 9_000_000, measured=True)
    assert this_machine(CARD, ADA).context_bytes == 420_000_000
    assert constants_of(replace(CARD, name="NVIDIA Other"), ADA) == documented(ADA)
    monkeypatch.setattr(measured_overhead, "cuda_driver", lambda: "590.2")
    assert constants_of(CARD, ADA) == documented(ADA)


def test_a_damaged_file_is_as_none() -> None:
    measured_overhead.FILE.write_text("[1, 2")
    assert constants_of(CARD, ADA) == documented(ADA)
    measured_overhead.FILE.write_text("[1, 2]")
    assert constants_of(CARD, ADA) == documented(ADA)


def test_a_reading_that_somebody_else_has_spoilt_is_not_kept(monkeypatch) -> None:
    monkeypatch.setattr(measured_overhead, "device", lambda: CARD)
    monkeypatch.setattr(
        measured_overhead, "measure", lambda card: MeasuredOverhead(9 * 2**30, 9_000_000, measured=True)
    )
    assert measured_overhead.main() == {}
    assert not measured_overhead.FILE.exists()
    monkeypatch.setattr(
        measured_overhead, "measure", lambda card: MeasuredOverhead(400 * 2**20, 9_000_000, measured=True)
    )
    assert measured_overhead.main()["context_bytes"] == 400 * 2**20
    assert constants_of(CARD, ADA).measured


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


def test_a_card_of_an_unknown_generation_has_a_guess() -> None:
    assert this_machine(Device("cuda", "NVIDIA Next", 2**35, 2**34), (19, 0)).flops > 0


def test_newer_cards_work_in_more() -> None:
    hopper, ada = documented((9, 0)), documented(ADA)
    threads = 2  # the one that calls, and the one that goes back
    assert hopper.workspace_bytes == threads * 32 * 2**20
    assert ada.workspace_bytes == threads * (2 * 4 * 2**20 + 8 * 16 * 2**10)
    assert of_card(find_card("rtx-4090-24gb")).workspace_bytes == ada.workspace_bytes
    assert this_machine(Device("cpu", "CPU", 2**34, 2**33), None).workspace_bytes == 0
