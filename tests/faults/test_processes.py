"""Processes: paused, killed at any moment, a pid that another has by now, several servers, starts in one instant."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from core.errors import RunError
from core.launch.submit import prepare
from core.recipe import make_recipe
from core.runs.find import list_runs
from core.runs.heartbeat import hanging
from core.runs.store import OPEN, Run
from core.runs.supervisor import Supervisor
from core.system.process import process_started
from core.workspace import ROOT, Workspace
from tests.faults.outcome import is_the_same, last_checkpoint
from tests.faults.place import RECIPE, SEED, Place, WarmSupervisor, at_step, end, gone, kill
from tests.waiting import ended, wait_until

LAST_WORD = "The worker ended unexpectedly: it was killed, ran out of memory, or the machine went down."


def _moments(count: int) -> list[tuple[int, float]]:
    """Random ones: so long after the line of a step; some of them before there is any."""
    draw = random.Random(SEED)
    return [(draw.randint(-3, 12), round(draw.uniform(0, 0.2), 3)) for _ in range(count)]


def _killed(place: Place, step: int, seconds: float) -> Run:
    """A run whose worker was killed with -9 at that moment."""
    run = place.start("slowly", seconds=0.05)
    if step > 0:
        at_step(run, step)
    time.sleep(seconds if step > 0 else seconds * 10)
    kill(run)
    return run


def _goes_on(place: Place, run: Run, undisturbed: Run) -> None:
    """From its last checkpoint; where there is none yet, that is said."""
    assert run.status().message == LAST_WORD or run.status().state == "finished"
    if run.status().state == "finished":
        pass
    elif last_checkpoint(run) is None:
        with pytest.raises(RunError, match="cannot be resumed: it has no complete checkpoint. Start it again from"):
            place.resume(run)
        return
    else:
        place.finish(run)
    is_the_same(run, undisturbed)


@pytest.mark.parametrize(("step", "seconds"), [next(each for each in _moments(20) if each[0] > 1)])
def test_a_worker_killed_at_a_random_moment(place, undisturbed, step: int, seconds: float) -> None:
    _goes_on(place, _killed(place, step, seconds), undisturbed)


@pytest.mark.full
@pytest.mark.parametrize(("step", "seconds"), _moments(20))
def test_a_worker_killed_at_random_moments(place, undisturbed, step: int, seconds: float) -> None:
    _goes_on(place, _killed(place, step, seconds), undisturbed)


@pytest.mark.full
def test_the_real_worker_killed_through_the_command(place, undisturbed, tmp_path) -> None:
    """As a person would: `train` and `resume`, each killed, and a last `resume`."""
    recipe, draw = tmp_path / "recipe.yaml", random.Random(SEED)
    recipe.write_text(make_recipe(RECIPE).to_yaml(), encoding="utf-8")
    before = {run.id for run in list_runs(place.workspace)}
    words = ("train", str(recipe))
    for step in (2, 7):
        telling = _command(place.workspace, *words)
        wait_until("a run", lambda: {each.id for each in list_runs(place.workspace)} - before)
        run = next(each for each in list_runs(place.workspace) if each.id not in before)
        at_step(run, step)
        time.sleep(draw.uniform(0, 0.1))
        kill(run)
        assert telling.wait(timeout=60) == 1, "it tells that the run was interrupted"
        words = ("resume", run.id)
    assert _command(place.workspace, *words).wait(timeout=120) == 0
    is_the_same(run, undisturbed)


def _command(workspace: Workspace, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "core.cli", *words, "--data-dir", str(workspace.path)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no process is paused there")
def test_a_paused_worker_is_said_and_goes_on(place, undisturbed) -> None:
    run = place.start("slowly", seconds=0.05)
    at_step(run, 5)
    pid = run.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    wait_until("it is paused", lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    told = hanging(run)
    assert told is not None and "paused from outside" in told and f"kill -CONT {pid}" in told
    assert run.status().active, "it is no dead one"
    os.kill(pid, signal.SIGCONT)
    assert ended(run) == "finished"
    is_the_same(run, undisturbed)


@pytest.mark.full
@pytest.mark.skipif(sys.platform == "win32", reason="no process is paused there")
def test_a_paused_worker_is_ended_at_once(place, undisturbed) -> None:
    """What `stop --now` does."""
    run = place.start("slowly", seconds=0.05)
    at_step(run, 6)
    pid = run.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    supervisor = WarmSupervisor(place.workspace, place.warm)
    began = time.monotonic()
    said = supervisor.kill(run)
    assert time.monotonic() - began < 5
    assert said.startswith("Ended at once") and said == run.status().message
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert last_checkpoint(run) == 4
    place.finish(run)
    is_the_same(run, undisturbed)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is nobody's worker."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_a_pid_that_another_has_by_now_is_neither_adopted_nor_signalled(place, undisturbed, stranger) -> None:
    run = place.start("killed_at_step", step=7)
    gone(run)
    run.write_status(pid=stranger.pid, pid_started=process_started(stranger.pid) - 5)
    supervisor = WarmSupervisor(place.workspace, place.warm)
    assert run.status().state == "interrupted"
    assert supervisor.current() is None, "it does not hold the device"
    for signalled in (supervisor.stop, supervisor.kill):
        with pytest.raises(RunError, match="is not running: it is interrupted"):
            signalled(run)
    time.sleep(0.1)
    assert stranger.poll() is None
    place.finish(run)
    is_the_same(run, undisturbed)
    assert stranger.poll() is None


START = """
import os, sys, time
from core.runs.supervisor import Supervisor
from core.workspace import Workspace
supervisor = Supervisor(Workspace.open(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
started = supervisor.advance()
print(started.id if started else "none", flush=True)
"""


@pytest.mark.full
def test_two_starts_in_the_same_instant_make_one_worker(place, undisturbed) -> None:
    """Two servers on one workspace, two processes, the same run in the queue."""
    _one_of(place, 2)


def _one_of(place: Place, count: int) -> Run:
    run = prepare(make_recipe(RECIPE), place.workspace)
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(place.workspace.path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for each in starters:
        assert each.stdout is not None and each.stdout.readline() == "ready\n"
    for each in starters:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    told = sorted(each.communicate(timeout=60)[0].strip() for each in starters)
    assert told == sorted([run.id, *["none"] * (count - 1)])
    workers = _workers(run)
    assert len(workers) == 1
    assert workers[0].pid == run.status().pid
    end(run)
    gone(run)
    return run


def _workers(run: Run) -> list[psutil.Process]:
    """The processes that are at `run`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if "core.train.worker" in words and str(run.dir) in words:
                found.append(process)
    return found


DIES = """
import os, signal, subprocess, sys
from core.runs.supervisor import Supervisor
from core.workspace import Workspace
Supervisor._hand_over = lambda self, run, pid: os.kill(os.getpid(), signal.SIGKILL)
Supervisor(Workspace.open(sys.argv[1])).advance()
"""


@pytest.mark.full
def test_a_server_killed_while_it_starts_a_worker_leaves_one_worker(place, undisturbed) -> None:
    """Killed between the worker's start and the line that says so; another server starts what it finds waiting."""
    run = prepare(make_recipe(RECIPE), place.workspace)
    dead = subprocess.run([sys.executable, "-c", DIES, str(place.workspace.path)], cwd=ROOT, check=False)
    assert dead.returncode == -signal.SIGKILL
    assert run.status().state == "queued"
    Supervisor(place.workspace).advance()
    wait_until("one worker trains", lambda: run.status().state == "training")
    assert [each.pid for each in _workers(run)] == [run.status().pid]
    assert ended(run) == "finished", run.log_tail()
    is_the_same(run, undisturbed)


@pytest.mark.full
def test_the_next_run_starts_though_the_one_before_was_killed(place, undisturbed) -> None:
    first = place.start("slowly", seconds=0.1)
    second = place.start()
    at_step(first, 2)
    assert second.status().state == "queued"
    kill(first)
    supervisor = WarmSupervisor(place.workspace, place.warm)
    wait_until("the device is free", lambda: supervisor.advance() == second, 30)
    assert ended(second) == "finished"
    is_the_same(second, undisturbed)
    assert not [run for run in list_runs(place.workspace) if run.status().state in OPEN]
