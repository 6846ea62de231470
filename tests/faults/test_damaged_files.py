"""Files cut off or full of garbage: whoever reads copes, the message names the file, and the run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.run_view.drawings import RunDrawings
from app.runs.table_html import RunsTable, TableView
from core.errors import NibbleError, RunError
from core.launch.submit import prepare
from core.recipe import make_recipe
from core.runs.device_lock import holder
from core.runs.find import find_run, list_runs
from core.runs.store import Run
from core.runs.supervisor import Supervisor
from tests.faults.outcome import is_the_same, last_checkpoint, lines, losses, said
from tests.faults.place import RECIPE, Place, WarmSupervisor, at_step, copy, gone
from tests.waiting import ended, wait_until

# What a crash, a disk or a person may leave in a file: nothing, half of it, zeros, noise, JSON of another kind.
GARBAGE = {
    "empty": b"",
    "half": b'{"state": "train',
    "zeros": bytes(300),
    "noise": bytes(range(256)) * 3,
    "list": b"[1, 2]",
    "number": b"7",
    "nested": b"[" * 100_000,
    "other": b'{"state": 3, "pid": "x", "step": "many", "name": 5, "action": 1, "time": "noon", "tags": 3}',
}


@pytest.fixture(scope="module")
def interrupted(place: Place) -> Run:
    """A run that was killed at step 7, with the checkpoint of step 4."""
    run = place.start("killed_at_step", step=7)
    gone(run)
    return run


def _look(place: Place, run: Run) -> str:
    """Everything that shows a run; returns what it shows."""
    assert run.id in {each.id for each in list_runs(place.workspace)}
    parts = RunDrawings("cpu").parts(run)
    table = RunsTable(place.workspace)
    table.index.look_again(run.id)
    assert any(run.id in table.page(TableView(page=number), "").rows for number in range(1, 9))
    run.log_tail()
    return " ".join(parts.values())


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize(
    "file", ["status.json", "labels.json", "control.json", "plan.json", "result.json", "base.json", "pulse.json"]
)
def test_a_damaged_file_is_no_error_to_those_who_read(place, interrupted, file: str, garbage: str) -> None:
    run = copy(interrupted, f"20200101-000000-{file}-{garbage}")
    (run.dir / file).write_bytes(GARBAGE[garbage])
    assert run.status().state == "interrupted"
    if file == "status.json":
        assert run.status().message == "status.json is missing or damaged."
    _look(place, run)
    Supervisor(place.workspace).advance()
    with pytest.raises(RunError):
        Supervisor(place.workspace).stop(run)


@pytest.mark.full
@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_run_goes_on_whatever_is_in_its_small_files(place, interrupted, undisturbed, garbage: str) -> None:
    run = copy(interrupted, f"20200101-000001-all-{garbage}")
    for file in ("status.json", "labels.json", "control.json", "result.json", "pulse.json"):
        (run.dir / file).write_bytes(GARBAGE[garbage])
    place.finish(run)
    is_the_same(run, undisturbed)


def test_a_status_that_is_damaged_in_mid_run_is_written_anew(place, undisturbed) -> None:
    """And requests that make no sense are not obeyed."""
    run = place.start("slowly", seconds=0.15)
    at_step(run, 3)
    (run.dir / "status.json").write_bytes(GARBAGE["half"])
    (run.dir / "control.json").write_bytes(GARBAGE["other"])
    wait_until("the status is written anew", lambda: run.status().state not in ("interrupted", "queued"))
    assert ended(run) == "finished", (run.status(), run.log_tail())
    is_the_same(run, undisturbed)


@pytest.mark.full
@pytest.mark.parametrize("garbage", ["half", "zeros", "noise", "other", "nested"])
def test_damaged_lines_are_left_out_and_the_file_is_named(place, interrupted, undisturbed, garbage: str) -> None:
    """In the middle of what is kept, and at its end."""
    run = copy(interrupted, f"20200101-000002-lines-{garbage}")
    metrics = run.dir / "metrics.jsonl"
    whole = metrics.read_bytes().splitlines(keepends=True)
    metrics.write_bytes(b"".join([*whole[:2], GARBAGE[garbage] + b"\n", *whole[2:], GARBAGE[garbage]]))
    _look(place, run)
    place.finish(run)
    is_the_same(run, undisturbed)
    assert [each for each in said(run, "warning") if "metrics.jsonl" in each]


@pytest.mark.parametrize("garbage", ["empty", "half", "noise", "list", "number"])
def test_a_recipe_that_is_damaged_is_named(place, interrupted, garbage: str) -> None:
    run = copy(interrupted, f"20200101-000003-recipe-{garbage}")
    (run.dir / "recipe.yaml").write_bytes(GARBAGE[garbage])
    _look(place, run)
    with pytest.raises(NibbleError, match=r"recipe\.yaml"):
        place.resume(run)
    assert run.status().state == "interrupted"


@pytest.mark.parametrize(
    ("file", "garbage", "why"),
    [
        ("manifest.json", "half", "its manifest cannot be read"),
        ("manifest.json", "zeros", "its manifest cannot be read"),
        ("manifest.json", "list", "its manifest cannot be read"),
        ("manifest.json", "nested", "its manifest cannot be read"),
        ("progress.json", "empty", "progress.json has 0 bytes instead of"),
        ("random.pt", "noise", "random.pt has 768 bytes instead of"),
        ("adapter/adapter_config.json", "half", "adapter/adapter_config.json has 16 bytes instead of"),
    ],
)
def test_a_checkpoint_that_is_damaged_is_passed_over_and_named(place, interrupted, file, garbage, why) -> None:
    run = copy(interrupted, f"20200101-000004-{Path(file).name}-{garbage}")
    (run.dir / "checkpoints" / "4" / file).write_bytes(GARBAGE[garbage])
    from core.runs.manifest import newest_valid

    newest, passed_over = newest_valid(run.dir / "checkpoints")
    assert newest is not None and newest.name == "1"
    assert [step for step, _ in passed_over] == ["4"] and why in passed_over[0][1]


@pytest.mark.full
def test_a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before(place, interrupted, undisturbed) -> None:
    run = copy(interrupted, "20200101-000005-progress")
    (run.dir / "checkpoints" / "4" / "progress.json").write_bytes(GARBAGE["half"])
    place.finish(run)
    is_the_same(run, undisturbed)
    assert said(run, "resumed") == ["Resumed from step 1."]
    assert "The checkpoint of step 4 is skipped: progress.json has" in " ".join(said(run, "warning"))


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_the_workspace_remembers_may_be_damaged(tmp_path, warm, garbage: str) -> None:
    """The queue, who holds the device, who waits for it, which server runs."""
    place = Place(tmp_path, warm)
    run = prepare(make_recipe(RECIPE), place.workspace)
    for file in ("queue.json", "device.json", "device-wanted.json", "server.json"):
        (place.workspace.state / file).write_bytes(GARBAGE[garbage])
    supervisor = Supervisor(place.workspace)
    assert supervisor.queued() == [run]
    assert holder(place.workspace) is None
    assert supervisor.current() is None
    from app.server.instance import Instance

    assert Instance(place.workspace).running() is None
    supervisor.stop(run)
    assert find_run(place.workspace, "last").status().state == "stopped"


@pytest.mark.full
def test_a_run_starts_though_the_queue_is_damaged(place, undisturbed) -> None:
    run = prepare(make_recipe(RECIPE), place.workspace)
    for file in place.workspace.state.glob("*.json"):
        file.write_bytes(GARBAGE["noise"])
    assert WarmSupervisor(place.workspace, place.warm).advance() == run
    assert ended(run) == "finished"
    is_the_same(run, undisturbed)
    assert last_checkpoint(run) == 12 and losses(run) and lines(run, "memory.jsonl")
    json.loads((run.dir / "status.json").read_text())
