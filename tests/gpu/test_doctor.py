"""`doctor` and `plan` on five generations of cards: what they tell is what the card is."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.cli import main as cli
from core.system.compute_dtype import compute_dtype
from core.system.doctor import examine_engine
from core.system.hardware import device
from tests.gpu.command_line import call
from tests.gpu.machines import on, on_each
from tests.gpu_standin.machine import ADA, AMPERE, BLACKWELL, PASCAL, TURING, Card

MIB = 2**20
# By CUDA's documentation: bf16 came with 8.0; 6.1 computes fp16 at 1/64 of fp32's rate. cu126 is the last with Pascal.
UNMEASURED = {PASCAL: "float32", TURING: "float16", AMPERE: "bfloat16", ADA: "bfloat16", BLACKWELL: "bfloat16"}


@pytest.mark.parametrize("card", on_each(soon=()))  # test_quickstart.py has one in `test`
def test_doctor_finds_the_card_and_measures_it(card: Card, tmp_path: Path, measured: Path) -> None:
    measured.unlink(missing_ok=True)
    found, _ = call(tmp_path, "doctor")
    free = (card.mib - card.driver_mib) * MIB
    assert found["problems"] == []
    assert found["device"] == {
        "kind": "cuda",
        "name": card.name,
        "total_bytes": card.mib * MIB,
        "free_bytes": pytest.approx(free, abs=1024 * MIB),  # this test's own process is on the card
    }
    assert found["torch"]["available"] and found["torch"]["cuda"] == ("12.6" if card == PASCAL else "13.0")
    assert found["bitsandbytes"]["nf4_works"]
    # The stand-in takes 450 MiB for each process; torch's two workspaces of cuBLAS by its own documentation.
    assert found["constants"]["context_bytes"] == 450 * MIB
    assert found["constants"]["workspace_bytes"] == (2 * 32 * MIB if card == BLACKWELL else 2 * 8_519_680)
    assert found["constants"]["managed_memory"] is True
    assert found["compute_dtype"] == UNMEASURED[card]
    # From now on by what was measured. Pascal's products in fp16 are as fast as in fp32, and take half the memory.
    assert compute_dtype(device())[0] == ("float16" if card == PASCAL else UNMEASURED[card])


@pytest.mark.parametrize("card", on_each())
def test_the_engine_has_kernels_for_each_generation(card: Card) -> None:
    found = examine_engine()
    assert found["problems"] == [] and found["torch"]["available"] and found["bitsandbytes"]["nf4_works"]


@pytest.mark.full
@on(TURING, managed_memory=False)
def test_a_card_without_managed_memory_is_told(tmp_path: Path, measured: Path) -> None:
    measured.unlink(missing_ok=True)
    found, _ = call(tmp_path, "doctor")
    assert found["problems"] == [] and found["constants"]["managed_memory"] is False
    assert any("optimizers are not paged" in note for note in found["notes"])


@pytest.mark.parametrize("card", on_each(soon=(PASCAL, AMPERE)))
def test_a_plan_without_a_card_is_for_this_machines(card: Card, tmp_path: Path, capsys: Any) -> None:
    words = ["plan", "quickstart", "--data-dir", str(tmp_path)]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "starter, rank 16, on this machine" in said and "Fits: " in said
    assert "  context              " in said and "paged_adamw_32bit" in said
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # The catalogue knows these cards: their speed is that of the datasheet, their memory what NVML says.
    assert found["budget_bytes"] <= (card.mib - card.driver_mib) * MIB


@pytest.mark.full
@on(TURING)
def test_a_model_that_is_too_large_for_the_card_is_told_what_would_fit(tmp_path: Path, capsys: Any) -> None:
    assert cli.main(["plan", "modern", "--set", "model=qwen3-8b", "--data-dir", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "Does not fit: " in said and "Instead  " in said
