"""A clock that is set, memory that runs out, a loss that is no number: told, and gone on from what was saved."""

from __future__ import annotations

import sys

import pytest

from core.runs.heartbeat import hanging
from core.runs.supervisor import Supervisor
from tests.faults.outcome import is_the_same, last_checkpoint, lines, said
from tests.faults.place import Place, at_step
from tests.waiting import ended

HOUR = 3600.0


@pytest.mark.parametrize("hours", [-3, pytest.param(20, marks=pytest.mark.full)])
def test_a_clock_that_is_set_changes_nothing(place, undisturbed, hours: int) -> None:
    """Not the result, not the time that it took, and it neither hangs nor is dead for that."""
    run = place.start("clock_set", step=5, seconds=hours * HOUR)
    at_step(run, 6)
    assert hanging(run) is None
    assert run.status().state in ("training", "finished")
    assert ended(run) == "finished"
    is_the_same(run, undisturbed)
    assert 0 < run.result()["seconds"] < 300
    seconds = [row["seconds"] for row in lines(run, "memory.jsonl")]
    assert seconds == sorted(seconds)


@pytest.mark.full
@pytest.mark.parametrize("hours", [-3, 3])
def test_a_stop_is_obeyed_whatever_the_clock_says(place: Place, undisturbed, hours: int) -> None:
    """The worker's clock is off by hours when it reads what another has asked of it."""
    run = place.start("clock_and_slow", step=3, seconds=hours * HOUR, each=0.2)
    at_step(run, 4)
    Supervisor(place.workspace).stop(run)
    assert ended(run, 30) == "stopped"
    assert run.status().message.startswith("Stopped after")
    place.finish(run)
    assert run.has_adapter and run.status().step == 12


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of one process")
@pytest.mark.full
def test_memory_that_runs_out_for_good_is_told_and_more_of_it_goes_on(place, undisturbed) -> None:
    """The budget is enforced by the system; what is named as one that would do is given to the run that is resumed."""
    run = place.start("no_memory", {"budget": "2GiB"}, step=7)
    assert ended(run) == "failed"
    message = run.status().message
    assert "Memory ran out within the budget of 2.00 GiB" in message
    assert "Progress up to step 6 is saved" in message and "Raise the budget to 66.00 GiB or more" in message
    assert last_checkpoint(run) == 6 and run.has_adapter
    place.resume(run, ["budget=3GiB"])
    assert ended(run) == "finished", run.status()
    assert "From step 7 on, budget is 3GiB instead of 2GiB." in said(run, "changed")[0]
    assert [row["step"] for row in lines(run, "metrics.jsonl") if "loss" in row] == list(range(1, 13))


@pytest.mark.full
def test_a_loss_that_is_lost_is_told_and_the_checkpoint_before_goes_on(place, undisturbed) -> None:
    run = place.start("no_number", step=6)
    assert ended(run) == "failed"
    message = run.status().message
    assert "The loss was NaN or infinite in three steps in a row, up to step 8." in message
    assert "The adapter of the last checkpoint, step 4, is kept." in message
    assert "Try a lower train.learning_rate" in message and "of the data." in message
    assert last_checkpoint(run) == 4
    place.finish(run)
    is_the_same(run, undisturbed)
