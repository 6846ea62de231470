"""A worker that works is told from one that hangs, whatever the clock on the wall says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.recipe import make_recipe
from core.runs import heartbeat
from core.runs.create import create_run
from core.runs.heartbeat import HeartbeatWriter, hanging, read_heartbeat, stopping
from core.runs.store import Run
from core.system.process import process_started
from core.workspace import Workspace

NOW = 50_000.0


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run that this very process is at."""
    made = create_run(Workspace.open(tmp_path), make_recipe({}), {"file": "x", "sha256": "0", "name": "x"})
    made.write_status(state="training", pid=os.getpid(), pid_started=process_started(os.getpid()), started=time.time())
    return made


def _says(run: Run, **changes: Any) -> None:
    said = {"pid": os.getpid(), "beat": 700, "at": NOW, "seconds": 700.0, "doing": "step", "since": 1.0, "step": 57}
    said |= {"saved_step": 40, "last_step_seconds": 2.0, "usual": {"step": 2.0}, "card": {}}
    (run.dir / "pulse.json").write_text(json.dumps({**said, **changes}))


def test_no_step_for_long_is_told_with_what_to_do(run: Run) -> None:
    _says(run, since=300.0)
    assert hanging(run, NOW) == (
        "No step for 5 min; the last one took 2 s. It may be stuck; you can end it now; it can resume from its last "
        "checkpoint (step"
        " 40)."
    )


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"since": 100.0}, id="a slow step"),
        pytest.param({"since": 500.0, "usual": {"step": 90.0}}, id="steps are slow here"),
        pytest.param({"since": 1000.0, "usual": {}, "last_step_seconds": None}, id="the first step"),
        pytest.param({"since": 1500.0, "doing": "evaluating"}, id="a long evaluation"),
        pytest.param({"since": 280.0, "doing": "saving", "usual": {"saving": 1.0}}, id="a disk that is slow today"),
        pytest.param({"since": 1800.0, "doing": "loading"}, id="a large model is loaded"),
        pytest.param({"since": 90_000.0, "doing": "downloading"}, id="a large model is downloaded"),
        pytest.param({"at": NOW - 30.0}, id="a machine that is busy"),
        pytest.param({"at": NOW - 9_000.0, "pid": 1}, id="what an earlier worker has said"),
        pytest.param({"at": NOW + 9_000.0}, id="what was said before the machine was started anew"),
    ],
)
def test_what_takes_its_time_does_not_hang(run: Run, said: dict[str, Any]) -> None:
    _says(run, **said)
    assert hanging(run, NOW) is None


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"since": 2000.0, "usual": {}, "last_step_seconds": None}, "No step for 33 min 20 s. It may be stuck"),
        (
            {"since": 700.0, "doing": "evaluating", "usual": {"evaluating": 30.0}},
            "evaluating for 11 min 40 s; the last",
        ),
        ({"since": 950.0, "doing": "saving", "saved_step": None}, "end it now; nothing has been saved yet."),
        ({"at": NOW - 90.0}, "The worker has not responded for 1 min 30 s."),
        ({"at": NOW - 59.0, "since": 100.0}, "No step for 2 min 39 s"),
    ],
)
def test_what_takes_far_longer_than_usual_may_hang(run: Run, said: dict[str, Any], told: str) -> None:
    _says(run, **said)
    assert told in str(hanging(run, NOW))


@pytest.mark.parametrize("content", [None, "", "{half", "[]", '{"pid": 1}'])
def test_a_worker_that_has_said_nothing_readable_is_not_blamed(run: Run, content: str | None) -> None:
    if content is not None:
        (run.dir / "pulse.json").write_text(content)
    assert hanging(run) is None


def test_a_run_that_has_ended_does_not_hang(run: Run) -> None:
    _says(run, since=300.0)
    run.write_status(state="finished")
    assert hanging(run, NOW) is None


@pytest.fixture
def paused(run: Run) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that is at the run, and has been stopped by a signal."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    run.write_status(pid=child.pid, pid_started=process_started(child.pid))
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    yield child
    child.kill()
    child.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_a_process_that_was_stopped_is_told_at_once(run: Run, paused: subprocess.Popen[bytes]) -> None:
    _says(run, pid=paused.pid)
    told = str(hanging(run, NOW))
    assert "was paused from outside" in told and f"kill -CONT {paused.pid}" in told


def test_the_heart_beats_while_the_worker_is_busy(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    with HeartbeatWriter(run, os.getpid()) as heart:
        heart.turn_to("step")
        first = read_heartbeat(run)
        time.sleep(0.2)  # one long step
        later = read_heartbeat(run)
        heart.stepped(1)
        with heart.at("evaluating"):
            time.sleep(0.05)
        with heart.at("saving"):
            time.sleep(0.02)
        heart.saved(1)
        time.sleep(0.06)
        last = read_heartbeat(run)
    assert first is not None and later is not None and last is not None
    assert later.beat > first.beat + 2 and later.since > 0.1 and later.step == 0
    assert (last.step, last.saved_step, last.doing) == (1, 1, "step")
    assert last.usual["step"] == pytest.approx(0.2, abs=0.1), "the pause after it is not counted in"
    assert last.usual["evaluating"] == pytest.approx(0.05, abs=0.04)
    assert hanging(run) is None


def test_a_clock_that_is_set_changes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with HeartbeatWriter(run, os.getpid()):
        run.request("stop")
        real = time.time
        for hours in (-5, 5):
            monkeypatch.setattr(time, "time", lambda hours=hours: real() + hours * 3600)
            assert hanging(run) is None
            asked = stopping(run)
            assert asked is not None and 50 < asked.left_seconds <= 60


def test_a_full_disk_does_not_stop_the_heart(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    heart = HeartbeatWriter(run)
    monkeypatch.setattr(Path, "write_text", full)
    heart._beat()
    monkeypatch.undo()
    heart._beat()
    assert read_heartbeat(run) is not None


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({}, 64.0),
        ({"usual": {"step": 2.0, "evaluating": 30.0, "saving": 5.0}}, 134.0),
        ({"usual": {}}, 180.0),
        ({"doing": "evaluating"}, 664.0),
        ({"doing": "loading"}, 60.0),
    ],
)
def test_a_stop_may_take_a_minute_more_than_what_there_is_to_do(run: Run, said: dict[str, Any], seconds: float) -> None:
    _says(run, **said)
    assert stopping(run) is None
    run.request("stop")
    asked = stopping(run)
    assert asked is not None and asked.limit_seconds == seconds
    assert asked.left_seconds == pytest.approx(seconds, abs=1)
    assert asked.since == pytest.approx(time.time(), abs=2)
    later = stopping(run, time.monotonic() + seconds + 1)
    assert later is not None and later.left_seconds < 0
