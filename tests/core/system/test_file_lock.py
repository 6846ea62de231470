"""A lock is free as soon as its holder is gone, whatever the holder has started or forked meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.system import file_lock as module
from core.system.file_lock import file_lock, remove_lock, try_lock
from core.workspace import ROOT
from tests.core.held_open import WINDOWS

HOLDER = """
import os, subprocess, sys, time
from pathlib import Path
from core.system.file_lock import try_lock
lock = try_lock(Path(sys.argv[1]))
left = {leaves}
print("held", flush=True)
sys.stdin.read()
"""
LEAVES = {
    "nobody": "None",
    "a child": "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)'], stdout=subprocess.DEVNULL)",
    "a fork": "os.fork() or os._exit(time.sleep(20) or 0)",
}


@pytest.mark.parametrize("leaves", LEAVES)
def test_a_holder_that_is_killed_holds_nobody_up(tmp_path: Path, leaves: str) -> None:
    if leaves == "a fork" and sys.platform == "win32":
        pytest.skip("Windows has no fork")
    script = HOLDER.format(leaves=LEAVES[leaves])
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "lock")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert try_lock(tmp_path / "lock") is None
    holder.kill()
    holder.wait()
    lock = try_lock(tmp_path / "lock", 5.0)
    assert lock is not None
    assert (tmp_path / "lock").is_file()


def test_another_thread_waits_and_another_may_release(tmp_path: Path) -> None:
    lock, order = file_lock(tmp_path / "lock"), []

    def wait() -> None:
        with file_lock(tmp_path / "lock"):
            order.append("second")

    lock.acquire()
    assert try_lock(tmp_path / "lock") is None
    waiting = threading.Thread(target=wait)
    waiting.start()
    order.append("first")
    releasing = threading.Thread(target=lock.release)
    releasing.start()
    releasing.join()
    waiting.join(5)
    assert order == ["first", "second"]


@pytest.mark.parametrize(("system", "was_open"), [(WINDOWS, False), (SimpleNamespace(platform="linux"), True)])
def test_a_lock_is_closed_before_its_file_goes_only_where_it_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: SimpleNamespace, was_open: bool
) -> None:
    monkeypatch.setattr(module, "sys", system)
    held, seen, unlink = try_lock(tmp_path / "lock"), [], Path.unlink
    assert held is not None

    def look(path: Path, missing_ok: bool = False) -> None:
        seen.append(held.is_locked)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", look)
    remove_lock(held)
    assert seen == [was_open]
    assert not held.is_locked
    assert not (tmp_path / "lock").exists()


def test_a_lock_whose_file_another_has_opened_is_given_back_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(32, "in use")

    monkeypatch.setattr(module, "sys", WINDOWS)
    monkeypatch.setattr(Path, "unlink", refuse)
    held = try_lock(tmp_path / "lock")
    assert held is not None
    remove_lock(held)
    assert try_lock(tmp_path / "lock") is not None
