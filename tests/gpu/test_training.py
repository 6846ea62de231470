"""Training on five generations of cards: the losses are the CPU's in the same dtype, memory is what was predicted."""

import json

import pytest

from core.runs.tail import Tail
from tests.gpu.in_process import losses, peaks, settings, train
from tests.gpu_standin.machine import GENERATIONS, Machine


@pytest.mark.parametrize(
    "card",
    [pytest.param(each, marks=pytest.mark.machine(Machine(cards=(each,))), id=each.name) for each in GENERATIONS],
)
def test_a_run_on_each_generation_of_cards(card, workspace, tiny, rows_file) -> None:
    run = train(workspace, settings(tiny, rows_file))
    assert run.status().state == "finished", run.status().message
    assert len(losses(run)) == 4
    events = {event["kind"]: event["message"] for event in Tail(run.dir / "events.jsonl").read()}
    assert card.name in events["device"]
    assert ("bfloat16" in events["device"]) == (card.capability >= (8, 0))
    assert "enforced by torch's allocator" in events["budget"]
    counted, predicted = peaks(run)
    assert counted == pytest.approx(predicted, rel=0.01)
    assert json.loads((run.dir / "plan.json").read_text())["chosen"]["optimizer"] == "paged_adamw_32bit"
    samples = Tail(run.dir / "memory.jsonl").read()
    assert samples[-1]["allocated_bytes"] > 0 and samples[-1]["process_bytes"] > 450 * 2**20
    assert (samples[-1]["temperature_celsius"], samples[-1]["power_watts"]) == (61, 214.5)
