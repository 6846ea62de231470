"""Two processes that share each step, over gloo on a CPU, go the way that one goes with the same effective batch."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import core.train.loop as loop
from core.errors import RecipeError
from core.launch.machines import set_up
from core.launch.submit import submit
from core.recipe import Recipe, make_recipe
from core.runs.manifest import valid_checkpoints
from core.runs.resume import resume
from core.runs.store import OPEN, Run
from core.runs.supervisor import Supervisor
from core.runs.tail import Tail
from core.train.parallel import Ranks
from core.train.ranks import free_port, refuse_devices
from core.workspace import ROOT, Workspace
from tests.core.queue_only import QueueOnly
from tests.core.train.patched_supervisor import PatchedSupervisor

STEPS = 8


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is a GPU: it is one."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def _recipe(tiny: Path, rows_file: Path, **settings: Any) -> Recipe:
    values = {
        "model": str(tiny),
        "data.path": str(rows_file),
        "lora.rank": 4,
        "train.effective_batch": 6,
        "train.learning_rate": 0.01,
        "train.schedule": "constant",
        "train.max_steps": 5000,
        "evaluation.times": 1,
        "evaluation.max_new_tokens": 2,
    }
    return make_recipe({**values, **settings})


def _run(tiny: Path, rows_file: Path, folder: Path, supervisor: Any, **settings: Any) -> Run:
    workspace = Workspace.open(folder)
    return submit(_recipe(tiny, rows_file, **settings), workspace, supervisor(workspace))


def _wait(run: Run, until: Callable[[], bool], seconds: float = 240) -> str:
    end = time.monotonic() + seconds
    while run.status().state in OPEN and not until() and time.monotonic() < end:
        time.sleep(0.05)
    return run.status().state


def _steps(run: Run, key: str) -> list[float]:
    return [row[key] for row in Tail(run.dir / "metrics.jsonl").read() if key in row and row["step"]][:STEPS]


class _ShortOfMemory(PatchedSupervisor):
    """It finds no room for two conversations at once in step 3."""

    lines = """
original = loop.NibbleTrainer.summed_loss
def short(self, inputs):
    if self.state.global_step == 2 and (inputs['position_ids'] == 0).sum() > 1: raise MemoryError
    return original(self, inputs)
loop.NibbleTrainer.summed_loss = short
"""


class _Weighed(PatchedSupervisor):
    """It says in an event how many bytes of quantised layers it holds, before and after they are sharded."""

    lines = """
original = loop.shard
def held(model):
    each = [p.to_local() if hasattr(p, "to_local") else p for n, p in model.named_parameters() if "layers" in n]
    return sum(p.numel() * p.element_size() for p in each if not p.requires_grad)
def weighed(model, ranks, device):
    before = held(model)
    original(model, ranks, device)
    run.event("held", f"{before} {held(model)}")
loop.shard = weighed
from core.runs.store import Run; from pathlib import Path; run = Run(Path(sys.argv[1]))
"""


@pytest.mark.usefixtures("unlimited_afterwards")
def test_two_processes_go_the_way_of_one_and_stop_after_the_same_step(
    tiny: Path, rows_file: Path, tmp_path: Path
) -> None:
    """Also where one of them runs out of memory on the way, and does its share of that step again."""
    # At a rate three times as high the fifth step's gradient is steep, and shows what was rounded otherwise before it.
    calm = {"train.learning_rate": 0.003}
    one = _run(tiny, rows_file, tmp_path / "one", lambda _: QueueOnly(), **calm, **{"train.max_steps": STEPS})
    assert loop.train(one) == "finished"

    two = _run(tiny, rows_file, tmp_path / "two", _ShortOfMemory, **calm, **{"train.devices": 2})
    assert _wait(two, lambda: two.status().step >= STEPS) == "training", two.log_tail()
    family = psutil.Process(two.status().pid).children()
    assert len(family) == 1
    two.request("stop")
    assert _wait(two, lambda: False) == "stopped", two.log_tail()
    step = two.status().step
    assert STEPS <= step < 5000
    assert [path.name for path in valid_checkpoints(two.dir / "checkpoints")] == [str(step), "1"]
    assert two.has_adapter and not family[0].is_running()
    assert {change["step"] for change in two.plan()["changed"]} == {3}

    for key in ("loss", "grad_norm"):
        assert _steps(two, key) == pytest.approx(_steps(one, key), abs=1e-4), key
    assert _steps(two, "tokens") == _steps(one, "tokens")
    assert not (two.dir / "rank-1" / "metrics.jsonl").exists()


@pytest.mark.usefixtures("unlimited_afterwards")
@pytest.mark.full
def test_a_base_that_is_dealt_out_goes_the_same_way(tiny: Path, rows_file: Path, tmp_path: Path) -> None:
    """Each process holds half of every layer; both evaluate and answer together, also when the run is stopped."""
    settings = {"evaluation.times": 1000, "train.effective_batch": 4, "train.micro_batch": 1}
    one = _run(tiny, rows_file, tmp_path / "one", lambda _: QueueOnly(), **settings, **{"train.max_steps": STEPS})
    assert loop.train(one) == "finished"

    two = _run(tiny, rows_file, tmp_path / "two", _Weighed, **settings, **{"train.devices": 2, "train.sharded": True})
    assert _wait(two, lambda: two.status().step >= STEPS) == "training", two.log_tail()
    two.request("stop")
    assert _wait(two, lambda: False) == "stopped", two.log_tail()

    held = next(event["message"] for event in Tail(two.dir / "events.jsonl").read() if event["kind"] == "held")
    before, after = map(int, held.split())
    assert after == before / 2
    for key in ("loss", "grad_norm"):
        assert _steps(two, key) == pytest.approx(_steps(one, key), abs=1e-4), key
    evaluated = [
        [row["eval_loss"] for row in Tail(run.dir / "metrics.jsonl").read() if "eval_loss" in row] for run in (one, two)
    ]
    assert evaluated[1][0] == pytest.approx(evaluated[0][0], abs=1e-4)
    assert evaluated[1][-1] < evaluated[1][0]
    assert two.has_adapter


@pytest.mark.full
def test_a_process_that_is_gone_ends_the_run_with_a_sentence(tiny: Path, rows_file: Path, tmp_path: Path) -> None:
    run = _run(tiny, rows_file, tmp_path, Supervisor, **{"train.devices": 2, "checkpoint.every_steps": 2})
    assert _wait(run, lambda: run.status().step >= 3) == "training", run.log_tail()
    psutil.Process(run.status().pid).children()[0].kill()
    assert _wait(run, lambda: False) == "failed"
    assert run.status().message.startswith("Process 2 of 2 was killed from outside (signal 9)")
    assert valid_checkpoints(run.dir / "checkpoints")


@pytest.mark.full
def test_a_worker_that_is_killed_takes_the_others_with_it(tiny: Path, rows_file: Path, tmp_path: Path) -> None:
    run = _run(tiny, rows_file, tmp_path, Supervisor, **{"train.devices": 2})
    assert _wait(run, lambda: run.status().step >= 1) == "training", run.log_tail()
    worker = psutil.Process(run.status().pid)
    (other,) = worker.children()
    worker.kill()
    other.wait(timeout=30)


@pytest.mark.full
def test_two_machines_train_by_the_commands_that_are_shown(tiny: Path, rows_file: Path, tmp_path: Path) -> None:
    """Both are this one; what is between two is only the address."""
    workspace = Workspace.open(tmp_path)
    recipe = _recipe(tiny, rows_file, **{"train.max_steps": 4})
    run, commands = set_up(recipe, workspace, machines=2, address="127.0.0.1", port=free_port())
    assert Supervisor(workspace).advance() is None, "it waits for its machines, not in the queue"
    launched = [subprocess.Popen(shlex.split(command), cwd=ROOT) for command in commands]
    assert [process.wait(timeout=300) for process in launched] == [0, 0]
    assert run.status().state == "finished"
    assert len(_steps(run, "loss")) == 4


def test_every_row_of_a_step_is_taken_once_and_the_shares_are_even() -> None:
    lengths = [5, 90, 7, 80, 6, 85]
    shares = [Ranks(rank, 2).share(range(6), lengths.__getitem__) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == list(range(6))
    assert [sum(lengths[row] for row in share) for share in shares] == [90 + 80 + 6, 85 + 7 + 5]
    assert Ranks().share([3, 1, 2], lengths.__getitem__) == [3, 1, 2]


def test_more_devices_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="train.devices: 64 is not possible here; this machine has no NVIDIA GPU"):
        refuse_devices(make_recipe({"train.devices": 64, "train.effective_batch": 64}))
    with pytest.raises(RecipeError, match="2 machines with 4 devices each are 8"):
        recipe = make_recipe({"train.devices": 4, "train.effective_batch": 4})
        set_up(recipe, Workspace.open(tmp_path), machines=2, address="127.0.0.1")
    with pytest.raises(RecipeError, match="does not divide train.effective_batch 6"):
        make_recipe({"train.devices": 4, "train.effective_batch": 6, "train.sharded": True})
    with pytest.raises(RecipeError, match="train.devices 4 is more than train.effective_batch 2"):
        make_recipe({"train.devices": 4, "train.effective_batch": 2})


@pytest.mark.full
@pytest.mark.parametrize("sharded", [False, True])
def test_several_processes_are_resumed_together(tiny: Path, rows_file: Path, tmp_path: Path, sharded: bool) -> None:
    """Stopped in mid-way and resumed, two go the way of two that were left alone."""
    settings = {"train.devices": 2, "train.sharded": sharded, "train.max_steps": 24, "train.schedule": "linear"}
    whole = _run(tiny, rows_file, tmp_path / "whole", Supervisor, **settings)
    assert _wait(whole, lambda: False) == "finished", whole.log_tail()
    workspace = Workspace.open(tmp_path / "parts")
    run = submit(_recipe(tiny, rows_file, **settings), workspace, Supervisor(workspace))
    _wait(run, lambda: run.status().step >= 1)
    run.request("stop")
    assert _wait(run, lambda: False) == "stopped", run.log_tail()
    resume(run, Supervisor(workspace))
    assert _wait(run, lambda: False) == "finished", run.log_tail()
    assert 0 < (run.status().resumed_from_step or 0) < 24
    losses = [
        [row["loss"] for row in Tail(each.dir / "metrics.jsonl").read() if "loss" in row] for each in (run, whole)
    ]
    assert len(losses[0]) == 24
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
