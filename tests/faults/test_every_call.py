"""Killed at every single call for files: the newest checkpoint is whole, and the run goes on to the very same end."""

from __future__ import annotations

import os
import random

import pytest

from core.runs.store import Run
from tests.faults.outcome import is_the_same, last_checkpoint, said, weights
from tests.faults.place import SEED, Place, crashes, distinct, gone

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
LAST_WORD = "The worker ended unexpectedly: it was killed, ran out of memory, or the machine went down."


def _is_whole(run: Run, undisturbed: Run, steps: set[int | None]) -> None:
    """Nothing is half there, and what has happened is said."""
    status = run.status()
    assert (status.state, status.message) == ("interrupted", LAST_WORD)
    assert last_checkpoint(run) in steps
    if run.has_adapter:
        assert weights(run.adapter) == weights(undisturbed.adapter)
        assert (run.adapter / "tokenizer.json").exists()


def _goes_on(place: Place, run: Run, undisturbed: Run) -> None:
    place.finish(run)
    is_the_same(run, undisturbed)
    assert not list((run.dir / "checkpoints").glob(".*")), "what the crash left behind is cleared away"
    assert not (run.dir / ".adapter.partial").exists()


def test_some_calls_of_a_checkpoint(place, undisturbed) -> None:
    """A sample of the next; the third one, of step 8, which takes that of step 1 away."""
    numbers = sorted(random.Random(SEED).sample(range(70), 6))
    run = place.start("every_call", window="checkpoint", at=3, how="kill", numbers=numbers)
    crashed = crashes(place, run)
    assert len(crashed) == len(numbers)
    for _, each in crashed:
        _is_whole(each, undisturbed, {4, 8})
    _goes_on(place, crashed[-1][1], undisturbed)


@pytest.mark.full
def test_every_call_of_a_checkpoint(place, undisturbed) -> None:
    run = place.start("every_call", window="checkpoint", at=3, how="kill", each_write=True)
    crashed = crashes(place, run)
    for _, each in crashed:
        _is_whole(each, undisturbed, {4, 8})
    calls = " ".join(call for call, _ in crashed)
    for file in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "random.pt", "manifest.json"):
        assert f"write checkpoints/.8.partial/{file}" in calls.replace("adapter/", "")
    assert "rename checkpoints/.8.partial" in calls and "flush checkpoints" in calls and "rmdir checkpoints/1" in calls
    assert {last_checkpoint(each) for _, each in crashed} == {4, 8}
    for each in distinct(crashed):
        _goes_on(place, each, undisturbed)


@pytest.mark.full
def test_every_call_of_the_adapter(place, undisturbed) -> None:
    crashed = crashes(place, place.start("every_call", window="adapter", at=1, how="kill"))
    for _, each in crashed:
        _is_whole(each, undisturbed, {12})
    assert {each.has_adapter for _, each in crashed} == {False, True}
    for each in distinct(crashed):
        _goes_on(place, each, undisturbed)


@pytest.mark.full
def test_every_call_of_a_resume(place, undisturbed) -> None:
    """Killed while its files are cut back."""
    run = place.start("killed_at_step", step=7)
    gone(run)
    crashed = crashes(place, place.resume(run, None, "every_call", window="cutting back", at=1, how="kill"))
    assert any("metrics.jsonl" in call for call, _ in crashed)
    for _, each in crashed:
        _is_whole(each, undisturbed, {4})
    for each in distinct(crashed):
        _goes_on(place, each, undisturbed)
        assert said(each, "resumed")[-1] == "Resumed from step 4."


@pytest.mark.full
def test_every_call_from_a_step_to_the_end(place, undisturbed) -> None:
    """Metrics, status, evaluation, answers, the best adapter, the result; the others are in the tests above."""
    others = ["checkpoints", ".adapter.partial", "pulse.json"]
    run = place.start("every_call", window="the rest of the run", at=12, how="kill", but=others)
    crashed = [(call, each) for call, each in crashes(place, run) if each.status().state != "finished"]
    for _, each in crashed:
        _is_whole(each, undisturbed, {8, 12})
    calls = " ".join(call for call, _ in crashed)
    for file in ("metrics.jsonl", "samples.jsonl", "events.jsonl", ".status.json", ".best.partial", ".result.json"):
        assert f"write {file}" in calls
    for each in distinct(crashed):
        _goes_on(place, each, undisturbed)
