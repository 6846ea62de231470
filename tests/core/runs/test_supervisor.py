"""Runs are started one at a time, stopped, ended and adopted; the workers are real ones that do not train."""

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

import psutil
import pytest

from core.cli import run as cli_run
from core.cli.main import main as cli_main
from core.errors import RunError
from core.recipe import make_recipe
from core.runs import heartbeat, supervisor
from core.runs.create import create_run
from core.runs.device_lock import hold, holder
from core.runs.heartbeat import hanging, stopping
from core.runs.store import Run
from core.runs.supervisor import Supervisor
from core.system.hardware import Device, Used
from core.system.process import child_environment, end_tree, process_started
from core.workspace import ROOT, Workspace, write_json
from tests.waiting import until

WORKER = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))
# A server as far as runs go: from the moment it is told, it starts whatever it can.
SERVER = """
import sys, time
from core.runs import supervisor
from core.workspace import Workspace
supervisor.WORKER = (sys.executable, sys.argv[2])
server = supervisor.Supervisor(Workspace.open(sys.argv[1]))
print("ready", flush=True)
time.sleep(max(0.0, float(sys.stdin.readline()) - time.time()))
for _ in range(40):
    run = server.advance()
    if run is not None:
        print(run.id, flush=True)
    time.sleep(0.01)
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(supervisor, "WORKER", WORKER)
    made = Workspace.open(tmp_path)
    yield made
    while (run := Supervisor(made).current()) is not None:
        Supervisor(made).kill(run)


def _run(workspace: Workspace, name: str) -> Run:
    return create_run(workspace, make_recipe({"name": name}), {"file": "x", "sha256": "0", "name": "x"})


def _at_step(workspace: Workspace, name: str, step: int = 4) -> Run:
    """A run that has come to `step`."""
    run = _run(workspace, name)
    assert Supervisor(workspace).advance() == run
    until(lambda: run.status().step >= step)
    return run


def _events(run: Run) -> str:
    return (run.dir / "events.jsonl").read_text("utf-8")


def test_the_next_one_starts_although_the_last_failed_or_was_killed(workspace: Workspace) -> None:
    fails, dies, finishes, last = (_run(workspace, name) for name in ("fails", "dies", "finishes", "steps"))
    server = Supervisor(workspace)

    def at_last() -> bool:
        server.advance()
        return last.status().step > 0

    until(at_last)
    assert [run.status().state for run in (fails, dies, finishes)] == ["failed", "interrupted", "finished"]
    assert fails.status().message == "It was intended to fail."


def test_a_run_that_cannot_be_started_does_not_hold_up_the_others(workspace: Workspace) -> None:
    broken, sound = _run(workspace, "steps"), _run(workspace, "finishes")
    (broken.dir / "worker.log").mkdir()
    assert Supervisor(workspace).advance() == sound
    until(lambda: sound.status().state == "finished")
    with pytest.raises(OSError):
        Supervisor(workspace).advance()


def test_two_servers_that_start_in_the_same_instant_start_one_worker(workspace: Workspace) -> None:
    runs = [_run(workspace, "steps") for _ in range(3)]
    command = [sys.executable, "-c", SERVER, str(workspace.path), WORKER[1]]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    servers = [subprocess.Popen(command, cwd=ROOT, env=child_environment(), **pipes) for _ in range(2)]
    for server in servers:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
    now = str(time.time() + 0.3)
    started = [line for server in servers for line in server.communicate(now, timeout=30)[0].split()]
    assert len(started) == 1
    assert sorted(run.status().state for run in runs)[:2] == ["queued", "queued"]
    assert Supervisor(workspace).current() == Run(workspace.runs / started[0])


def test_a_server_that_dies_right_after_a_start_leaves_one_worker(workspace: Workspace) -> None:
    """It has not written whose the run is: the worker does, and one that another server starts stands back."""
    run = _run(workspace, "steps")
    environment = {**child_environment(), "NIBBLE_TEST_HANDOVER": "0.5"}
    orphans = [subprocess.Popen([*WORKER, str(run.dir)], cwd=ROOT, env=environment) for _ in range(2)]
    until(lambda: holder(workspace) is not None)
    assert Supervisor(workspace).advance() is None, "the device is held, though the run still seems to wait"
    until(lambda: run.status().step > 0)
    until(lambda: any(orphan.poll() is not None for orphan in orphans))
    alive = [orphan.pid for orphan in orphans if orphan.poll() is None]
    assert alive == [run.status().pid]
    assert run.status().state == "training"
    Supervisor(workspace).kill(run)
    for orphan in orphans:
        orphan.wait()


def test_a_worker_that_comes_too_late_puts_its_run_back(workspace: Workspace) -> None:
    run, server = _run(workspace, "steps"), Supervisor(workspace)
    with hold(workspace, "run", "another", "another-id"):
        server.start_worker(run)
        assert run.status().state == "preparing"
        until(lambda: run.status().state == "queued")
        assert run.status().pid is None and server.advance() is None
    assert server.advance() == run


def test_a_stop_saves_and_asking_twice_does_not_begin_anew(workspace: Workspace) -> None:
    run, server = _at_step(workspace, "deaf"), Supervisor(workspace)
    assert stopping(run) is None
    assert server.stop(run) == "Stopping after this step; the checkpoint and the adapter are saved."
    first = run.asked()
    server.stop(run)
    assert run.asked() == first
    asked = stopping(run)
    assert asked is not None and 55 < asked.left_seconds < asked.limit_seconds < 65
    assert server.advance() is None and run.status().state == "training"


def test_a_stop_that_takes_too_long_is_ended(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run, server = _at_step(workspace, "deaf"), Supervisor(workspace)
    monkeypatch.setattr(heartbeat, "STOP_SECONDS", 0.3)
    server.stop(run)
    until(lambda: server.advance() or not run.status().active)
    status = run.status()
    assert status.state == "stopped" and status.step >= 4
    assert "It did not stop within 0 s and was killed, at step" in status.message
    assert "Progress up to step 3 is saved in its checkpoint. Resume" in status.message
    assert "and was killed, at step" in _events(run)


def test_the_wait_can_be_cut_short_and_the_whole_tree_ends(workspace: Workspace) -> None:
    run, server = _at_step(workspace, "family"), Supervisor(workspace)
    child, worker = int((run.dir / "child").read_text()), run.status().pid
    server.stop(run)
    assert "Progress up to step 3 is saved in its checkpoint" in server.kill(run)
    assert run.status().state == "stopped"
    until(lambda: holder(workspace) is None, 1)
    for pid in (child, worker):
        assert pid is not None
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    with pytest.raises(RunError, match="is not running: it is stopped"):
        server.kill(run)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_a_worker_that_was_paused_is_told_and_ended(workspace: Workspace) -> None:
    run, server = _at_step(workspace, "steps"), Supervisor(workspace)
    pid = run.status().pid
    assert pid is not None and hanging(run) is None
    os.kill(pid, signal.SIGSTOP)
    until(lambda: hanging(run))
    assert "(step 3)" in str(hanging(run))
    os.kill(pid, signal.SIGCONT)
    until(lambda: hanging(run) is None)
    os.kill(pid, signal.SIGSTOP)
    server.kill(run)
    assert run.status().state == "stopped"


@pytest.fixture
def stranger() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process that is none of ours, and its child."""
    script = "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0)\n"
    script += "print(child.pid, flush=True); child.wait()"
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    yield process, int(process.stdout.readline())
    process.communicate(b"\n")


def test_a_pid_that_another_process_has_by_now_is_left_alone(
    workspace: Workspace, stranger: tuple[subprocess.Popen[bytes], int]
) -> None:
    process, child = stranger
    run, waits = _run(workspace, "steps"), _run(workspace, "finishes")
    run.write_status(state="training", pid=process.pid, pid_started=process_started(process.pid) - 3600)
    server = Supervisor(workspace)
    assert run.status().state == "interrupted" and server.current() is None
    for refused in (server.stop, server.kill):
        with pytest.raises(RunError, match="is not running: it is interrupted"):
            refused(run)
    assert server.advance() == waits, "it is not taken for the one at work"
    until(lambda: waits.status().state == "finished")
    assert process.poll() is None and psutil.Process(child).status() != psutil.STATUS_ZOMBIE


def test_a_pid_that_changes_hands_while_we_look_is_left_alone(
    stranger: tuple[subprocess.Popen[bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, child = stranger
    answers = iter([True, False])
    monkeypatch.setattr("core.system.process.is_alive", lambda pid, started: next(answers))
    assert end_tree(process.pid, 1.0)
    assert process.poll() is None and psutil.pid_exists(child)


def test_on_a_gpu_the_chat_gives_way(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.runs.device_lock.device", lambda: Device("cuda", "Card", 2**34, 2**33))
    monkeypatch.setattr("core.runs.device_lock.device_used_bytes", lambda *_: Used(None, 0))
    server = Supervisor(workspace)
    with hold(workspace, "chat", "SmolLM2") as chat:
        run = _run(workspace, "finishes")
        assert chat.wanted() is None and server.advance() is None
        assert chat.wanted() == "“finishes”"
        assert "It starts when the chat with “SmolLM2” releases the device" in server.waits_for()
    assert server.advance() == run
    assert server.waits_for() in ("It starts when “finishes” has ended.", "It starts in a moment.")


def test_on_a_cpu_the_chat_stays(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.runs.device_lock.device", lambda: Device("cpu", "CPU", 2**34, 2**33))
    with hold(workspace, "chat", "SmolLM2") as chat:
        run = _run(workspace, "finishes")
        assert Supervisor(workspace).advance() == run
        assert chat.wanted() is None


def _stop_command(workspace: Workspace, run: Run, capsys: Any, *more: str) -> dict[str, Any]:
    assert cli_main(["stop", run.id, "--data-dir", str(workspace.path), "--json", *more]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_the_command_waits_until_the_run_has_stopped(workspace: Workspace, capsys: Any) -> None:
    run = _at_step(workspace, "steps")
    told = _stop_command(workspace, run, capsys)
    assert (told["run"], told["state"]) == (run.id, "stopped")
    assert told["message"].startswith("Stopped after")


def test_the_command_ends_a_run_that_does_not_listen(workspace: Workspace, capsys: Any) -> None:
    run = _at_step(workspace, "deaf")
    told = _stop_command(workspace, run, capsys, "--now")
    assert told["state"] == "stopped" and "up to step 3" in told["message"]


def test_the_command_takes_a_run_out_of_the_queue(workspace: Workspace, capsys: Any) -> None:
    run = _run(workspace, "steps")
    assert _stop_command(workspace, run, capsys, "--now")["state"] == "stopped"
    assert Supervisor(workspace).advance() is None


def test_of_a_worker_that_was_killed_the_server_tells(workspace: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "told"
    script = f"import os; open({str(out)!r}, 'a').write(os.environ['NIBBLE_STATE'])"
    write_json(workspace.state / "notify.json", {"command": [sys.executable, "-c", script]})
    run, server = _run(workspace, "dies"), Supervisor(workspace)
    until(lambda: server.advance() or run.status().state == "interrupted")
    until(lambda: server.advance() or (out.exists() and out.read_text()))
    server.advance()
    assert out.read_text() == "interrupted"


def test_a_stop_is_heard_on_a_full_disk(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _at_step(workspace, "steps")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("core.runs.store.write_json", full)
    Supervisor(workspace).stop(run)
    monkeypatch.undo()
    until(lambda: run.status().state == "stopped")


def test_ctrl_c_stops_and_once_more_ends(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    run = _at_step(workspace, "deaf")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_run, "_follow", interrupt)
    status, answer = cli_run._see_through(run, Supervisor(workspace), 0.0)
    assert (status, answer["state"]) == (0, "stopped")
    said = capsys.readouterr().err
    assert "Press Ctrl-C again to end it now" in said and "Ended at once, at step" in said


def test_who_follows_a_run_is_told_what_it_waits_for_and_why_it_may_hang(workspace: Workspace, capsys: Any) -> None:
    run, waits = _at_step(workspace, "steps"), _run(workspace, "finishes")
    server = Supervisor(workspace)
    told = cli_run._look_after(waits, server, "")
    assert cli_run._look_after(waits, server, told) == told
    assert capsys.readouterr().err == "Queued. It starts when “steps” has ended.\n"
    pid = run.status().pid
    assert pid is not None and cli_run._look_after(run, server, "") == ""
    psutil.Process(pid).suspend()
    until(lambda: hanging(run))
    assert cli_run._look_after(run, server, cli_run._look_after(run, server, "")) == "hanging"
    assert capsys.readouterr().err.count("was paused from outside") == 1
