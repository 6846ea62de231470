"""One at a time holds the device, and nobody who is dead; who it is can be read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.device_lock import DeviceHeld, ask_to_give_way, hold, holder
from core.runs.store import Run
from core.system.hardware import Device, Used
from core.system.process import child_environment
from core.workspace import Workspace

HOLDS = """
import sys, time
from core.runs.device_lock import hold
from core.workspace import Workspace
held = hold(Workspace.open(sys.argv[1]), "run", "Pirate", "the-id")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.runs.device_lock.device", lambda: Device("cuda", "Card", 2**34, 2**33))
    monkeypatch.setattr("core.runs.device_lock.device_used_bytes", lambda *_: Used(None, 0))


def _run(workspace: Workspace, name: str) -> Run:
    return create_run(workspace, make_recipe({"name": name}), {"file": "x", "sha256": "0", "name": "x"})


def test_the_second_is_refused_and_told_by_whom(workspace: Workspace, on_a_gpu: None) -> None:
    assert holder(workspace) is None
    with hold(workspace, "chat", "SmolLM2"):
        by = holder(workspace)
        assert by is not None and (by.kind, by.pid, by.in_words()) == ("chat", os.getpid(), "the chat with “SmolLM2”")
        with pytest.raises(DeviceHeld, match="in use by the chat with “SmolLM2”"):
            hold(workspace, "run", "Pirate")
    assert holder(workspace) is None
    hold(workspace, "run", "Pirate").release()


def test_a_holder_that_is_killed_holds_nothing(workspace: Workspace) -> None:
    command = [sys.executable, "-c", HOLDS, str(workspace.path)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, env=child_environment())
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    by = holder(workspace)
    assert by is not None and (by.run, by.pid) == ("the-id", other.pid)
    with pytest.raises(DeviceHeld, match="the run “Pirate” is training"):
        hold(workspace, "run", "next")
    other.kill()
    other.wait()
    assert holder(workspace) is None, "whatever it has left behind in device.json"
    hold(workspace, "run", "next").release()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_fork_does_not_hold_on_when_its_parent_is_gone(workspace: Workspace) -> None:
    held = hold(workspace, "run", "Pirate")
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        held.release()
        time.sleep(0.1)
        assert holder(workspace) is None
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_on_a_cpu_all_but_runs_share(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.runs.device_lock.device", lambda: Device("cpu", "CPU", 2**34, 2**33))
    with hold(workspace, "run", "Pirate"), hold(workspace, "chat", "SmolLM2") as chat:
        assert chat._lock is None
        by = holder(workspace)
        assert by is not None and by.kind == "run"


def test_who_holds_the_device_learns_that_a_run_waits(workspace: Workspace, on_a_gpu: None) -> None:
    run = _run(workspace, "Pirate")
    with hold(workspace, "chat", "SmolLM2") as chat:
        assert chat.wanted() is None
        ask_to_give_way(workspace, run)
        assert chat.wanted() == "“Pirate”"
        run.write_status(state="stopped")
        assert chat.wanted() is None, "it waits no longer"


def test_a_damaged_line_leaves_a_holder_without_a_name(workspace: Workspace) -> None:
    with hold(workspace, "run", "Pirate"):
        (workspace.state / "device.json").write_text("{half")
        by = holder(workspace)
        assert by is not None and by.in_words() == "another process"
        with pytest.raises(DeviceHeld, match="another Nibble process"):
            hold(workspace, "run", "next")
