"""What saving costs: at the default interval at most 2 % of the time, by the durations that a real run tells."""

from __future__ import annotations

import re

import pytest
from safetensors.torch import load_file

from core.recipe import CheckpointSettings
from core.runs.store import Run
from tests.faults.outcome import lines, said
from tests.faults.place import Place
from tests.waiting import ended

BAR = 0.02
SAVED = re.compile(r"Saved step [\d,]+: ([\d.]+) MB in ([\d.]+) s\.")
# What an adapter of the default rank on all layers of Llama 3 8B trains.
PARAMETERS = 41_943_040


def _saves(run: Run) -> list[tuple[float, float]]:
    """(bytes, seconds) of each save, as the run's events say: writing, flushing, hashing, clearing old ones away."""
    found = [SAVED.fullmatch(message) for message in said(run, "checkpoint")]
    assert found and all(found)
    return [(float(each[1]) * 1e6, float(each[2])) for each in found if each is not None]


def test_a_checkpoint_costs_little_of_the_time_between_two(place: Place) -> None:
    """A save of an 8B model's adapter, against the ten minutes of training that come before it.

    The interval is counted from the end of one save to the beginning of the next, so saving takes the share
    `save / (interval + save)`; the early one, after the first step, comes once. What a save takes is measured with the
    starter's adapter, a tenth of that size, as its quickest: the others waited for what else the machine was at. It
    grows with what is written: the adapter in fp32 and the optimizer's two states, in 32 bits, the largest there are.
    """
    default = CheckpointSettings()
    assert default.every_steps is None and default.every_minutes is not None
    settings = {"lora.rank": 128, "train.optimizer": "paged_adamw_32bit", "checkpoint.every_steps": 2}
    run = place.start(settings=settings)
    assert ended(run) == "finished"
    saves = _saves(run)
    assert len(saves) == 7, "the early one, and every second step"
    trained = sum(weight.numel() for weight in load_file(run.adapter / "adapter_model.safetensors").values())
    assert max(size for size, _ in saves) < 12 * trained + 4e6, "and the tokenizer, and what resuming has to know"
    save = min(seconds for _, seconds in saves) * PARAMETERS / trained
    share = save / (default.every_minutes * 60 + save)
    assert share <= BAR, f"{share:.2%} of the time"


@pytest.mark.full
def test_what_the_events_say_of_a_save_is_what_it_takes(place: Place) -> None:
    """Measured from outside too: the time from one step's line to the next, less a step without a save."""
    settings = {"lora.rank": 64, "checkpoint.every_steps": 4, "train.max_steps": 24, "evaluation.times": 1}
    run = place.start(settings=settings)
    assert ended(run) == "finished"
    times = {row["step"]: row["time"] for row in lines(run, "metrics.jsonl") if "loss" in row}
    spans = {step: times[step + 1] - times[step] for step in range(2, 23)}
    with_save = [spans[step] for step in spans if step % 4 == 0]
    without = sorted(span for step, span in spans.items() if step % 4)
    usual = without[len(without) // 2]
    told = sum(seconds for _, seconds in _saves(run)[1:-1])
    took = sum(with_save) - usual * len(with_save)
    assert told == pytest.approx(took, rel=0.5, abs=0.3), (told, took)
