"""What was measured on a card counts until the card, the driver or torch is another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.system import measured_card
from core.system.hardware import Device
from core.system.measured_card import keep, measured

CARD = Device("cuda", "NVIDIA Test 4090", 24 * 2**30, 23 * 2**30)
OTHER = replace(CARD, name="NVIDIA Other")


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measured_card, "FILE", tmp_path / "nibble-gpu.json")
    monkeypatch.setattr(measured_card, "cuda_driver", lambda: "580.1")


def test_each_figure_is_kept_beside_the_others_and_each_card_beside_the_others() -> None:
    keep(CARD, context_bytes=1)
    keep(OTHER, context_bytes=2)
    keep(CARD, managed_memory=True)
    assert (measured(CARD)["context_bytes"], measured(CARD)["managed_memory"]) == (1, True)
    assert measured(OTHER)["context_bytes"] == 2 and "managed_memory" not in measured(OTHER)


@pytest.mark.parametrize("what", ["driver", "torch"])
def test_another_driver_or_torch_begins_anew(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    keep(CARD, context_bytes=1)
    if what == "driver":
        monkeypatch.setattr(measured_card, "cuda_driver", lambda: "590.2")
    else:
        monkeypatch.setattr(measured_card.metadata, "version", lambda package: "99.0")
    assert measured(CARD) == {}
    keep(CARD, managed_memory=False)
    assert "context_bytes" not in measured(CARD)


@pytest.mark.parametrize("content", ["[1, 2", "[1, 2]", '{"NVIDIA Test 4090": 7}', '{"of": {"card": "x"}}'])
def test_a_damaged_file_or_one_of_before_is_as_none(content: str) -> None:
    measured_card.FILE.write_text(content)
    assert measured(CARD) == {}
    keep(CARD, context_bytes=1)
    assert measured(CARD)["context_bytes"] == 1


def test_nothing_is_kept_of_a_cpu() -> None:
    assert measured(Device("cpu", "NVIDIA Test 4090", 2**34, 2**33)) == {}
