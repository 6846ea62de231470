"""Of two cards the freest is taken; CUDA_VISIBLE_DEVICES is obeyed, by number and by UUID; a slice by its own."""

import subprocess
import sys
from typing import Any

import pytest

from core.system.hardware import cuda_devices, device, hidden_cards
from core.workspace import ROOT
from tests.gpu.command_line import environment
from tests.gpu.machines import occupy, on
from tests.gpu_standin.machine import ADA, AMPERE, Card

SLICED = Card("NVIDIA A100 80GB PCIe", (8, 0), 81920, slice_mib=9984)
UUID = "GPU-00000001-0000-0000-0000-000000000000"
MIG = "MIG-00000000-0000-0000-0000-000000000000"
# What a child does first, and the card that torch then has.
CLAIM = """
from core.system.hardware import claim_card, device
chosen = device()
claim_card()
import torch
assert torch.cuda.device_count() == 1
torch.ones(1, device="cuda")
print(chosen.name, torch.cuda.get_device_name(0), sep="|")
"""


def _claimed(**variables: str) -> list[str]:
    command = [sys.executable, "-c", CLAIM]
    done = subprocess.run(command, env=environment(**variables), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|")


@on(ADA, AMPERE)
def test_the_freest_card_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device().name == ADA.name
    occupy(20_000, card=0)
    assert device().name == AMPERE.name
    assert _claimed() == [AMPERE.name, AMPERE.name]


@on(ADA, AMPERE)
@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("1", [AMPERE]),
        (UUID, [AMPERE]),
        ("GPU-00000001", [AMPERE]),
        ("1,0", [ADA, AMPERE]),
        ("0", [ADA]),
        ("", []),
        ("-1", []),
    ],
)
def test_only_the_cards_that_may_be_seen_are(named: str, found: list[Card], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert [card.name for card in cuda_devices()] == [card.name for card in found]
    assert hidden_cards() is None
    assert device().kind == ("cuda" if found else "cpu")


@on(ADA, AMPERE)
def test_a_name_that_no_card_has_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-ffff")
    assert device().kind == "cpu"
    assert "names none of this machine's NVIDIA cards, so the CPU is used" in str(hidden_cards())


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (UUID, AMPERE.name),
        pytest.param("1", AMPERE.name, marks=pytest.mark.full),
        pytest.param("1,0", ADA.name, marks=pytest.mark.full),
    ],
)
@on(ADA, AMPERE)
def test_torch_gets_the_card_that_was_named(named: str, found: str) -> None:
    assert _claimed(CUDA_VISIBLE_DEVICES=named) == [found, found]


@pytest.mark.full
@on(SLICED)
@pytest.mark.parametrize("named", [{}, {"CUDA_VISIBLE_DEVICES": MIG}, {"CUDA_VISIBLE_DEVICES": "0"}])
def test_torch_gets_the_slice(named: dict[str, str]) -> None:
    assert _claimed(**named) == [SLICED.name, SLICED.name]


def test_a_second_program_is_seen_at_once(machine: Any) -> None:
    free = device().free_bytes
    occupy(3000)
    assert device().free_bytes == free - 3000 * 2**20
