"""The README's quickstart on five cards, by the commands that a person uses, each on another kind of machine."""

from pathlib import Path
from typing import Any

import pytest

from core.runs.tail import Tail
from tests.gpu.command_line import call
from tests.gpu_standin.machine import (
    ADA,
    AMPERE,
    BLACKWELL,
    NOBODY_NAMED,
    PASCAL,
    TURING,
    USE_UNKNOWN,
    Card,
    Machine,
)

MIB = 2**20
MACHINES = {
    PASCAL: Machine(cards=(PASCAL,), driver="560.35.03"),
    TURING: Machine(cards=(TURING,), naming=USE_UNKNOWN),  # as under Windows and WSL
    AMPERE: Machine(cards=(AMPERE,)),
    ADA: Machine(cards=(ADA,), naming=NOBODY_NAMED),  # as in a container
    BLACKWELL: Machine(cards=(BLACKWELL,), has_sensors=False),
}
STEPS = 8


def _parameters() -> list[Any]:
    """One card in `test`, without the export, whose proof takes a minute in fp16 on a CPU; all in full."""

    def one(card: Card, exports: bool, *late: Any) -> Any:
        return pytest.param(
            card,
            exports,
            marks=[pytest.mark.machine(MACHINES[card]), *late],
            id=f"{card.name}{' and export' * exports}",
        )

    return [one(TURING, False, pytest.mark.full), *(one(card, True, pytest.mark.full) for card in MACHINES)]


@pytest.mark.parametrize(("card", "exports"), _parameters())
def test_a_whole_quickstart(card: Card, exports: bool, tmp_path: Path, measured: Path) -> None:
    measured.unlink(missing_ok=True)  # a machine that Nibble has just come to
    doctor, _ = call(tmp_path, "doctor")
    assert doctor["problems"] == [] and doctor["device"]["name"] == card.name
    assert doctor["constants"]["context_bytes"] == 450 * MIB and doctor["constants"]["managed_memory"] is True
    plan, _ = call(tmp_path, "plan", "quickstart")
    assert plan["fits"] and plan["peak_bytes"]["process"] < plan["budget_bytes"] < card.mib * MIB
    trained, told = call(
        tmp_path, "train", "quickstart", "--set", f"train.max_steps={STEPS}", "--set", "evaluation.times=1"
    )
    assert trained["state"] == "finished" and trained["steps"] == STEPS
    assert card.name in told and doctor["compute_dtype"] in told
    _learned_and_as_much_memory_as_planned(trained)
    answer, _ = call(tmp_path, "chat", "last", "--prompt", "Hello", "--greedy", "--max-new-tokens", "8")
    base, _ = call(tmp_path, "chat", "last", "--base", "--prompt", "Hello", "--greedy", "--max-new-tokens", "8")
    assert answer["tokens"] > 0 and base["tokens"] > 0
    if exports:
        proof = call(tmp_path, "export", "last", "--to", "adapter")[0]["verified"]
        assert proof["prompts"] > 0 and all(check["equal"] == check["of"] for check in proof["checks"])
    runs, _ = call(tmp_path, "runs")
    assert [(run["state"], run["step"]) for run in runs] == [("finished", STEPS)]


def _learned_and_as_much_memory_as_planned(trained: dict[str, Any]) -> None:
    losses = [row["loss"] for row in Tail(Path(trained["dir"]) / "metrics.jsonl").read() if "loss" in row]
    assert losses[-1] < losses[0] - 1
    used, predicted = trained["peak_bytes"], trained["predicted_peak_bytes"]
    assert used["tensors"] == pytest.approx(predicted["tensors"], rel=0.02)
    # Whatever the driver tells of processes: the context that the stand-in takes, and what torch reserves.
    assert used["process"] >= used["reserved"] + 450 * MIB
    assert used["process"] == pytest.approx(predicted["process"], rel=0.08)
