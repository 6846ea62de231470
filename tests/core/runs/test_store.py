"""A run is its files: states are derived, lines are read once, a pid is known by its start time too."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from core.errors import RunError
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.find import find_run, list_runs
from core.runs.store import Run
from core.runs.supervisor import Supervisor
from core.runs.tail import Tail
from core.system.process import is_alive, process_started
from core.workspace import Workspace, read_json, write_json


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.open(tmp_path)


def _run(workspace: Workspace, name: str = "first") -> Run:
    return create_run(workspace, make_recipe({"name": name}), {"file": "../x", "sha256": "0", "name": "x"})


def test_a_new_run_is_queued_and_keeps_its_recipe(workspace) -> None:
    run = _run(workspace)
    assert run.status().state == "queued"
    assert run.recipe().name == "first"
    assert run.name == "first"
    assert abs(run.created - time.time()) < 5


@pytest.mark.parametrize("wanted", ["last", "id", "prefix"])
def test_a_run_is_found(workspace, wanted: str) -> None:
    run = _run(workspace)
    assert find_run(workspace, {"last": "last", "id": run.id, "prefix": run.id[:10]}[wanted]) == run


def test_a_run_that_is_not_there_is_said(workspace) -> None:
    with pytest.raises(RunError, match="no runs yet"):
        find_run(workspace, "last")
    _run(workspace)
    _run(workspace, "second")
    with pytest.raises(RunError, match="There is no run 'xyz'"):
        find_run(workspace, "xyz")
    with pytest.raises(RunError, match="matches several runs:"):
        find_run(workspace, "2")


def test_a_worker_that_is_gone_is_interrupted_and_nothing_is_written(workspace) -> None:
    run = _run(workspace)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    started = process_started(gone.pid)
    gone.wait()
    run.write_status(state="training", pid=gone.pid, pid_started=started)
    before = (run.dir / "status.json").read_text()
    assert run.status().state == "interrupted"
    assert (run.dir / "status.json").read_text() == before


@pytest.mark.parametrize(
    ("log", "age", "expected"),
    [
        (
            "step 1\nError operation not supported at line 557 in file /src/csrc/pythonInterface.cpp\n",
            0,
            "operation not",
        ),
        ("Error out of memory at line 84 in file D:\\a\\bnb\\csrc\\ops.cu\n", 0, "out of memory"),
        ("Error operation not supported at line 557 in file /src/csrc/pythonInterface.cpp\n", 60, None),
        ("Error in line 3 of my.jsonl\n", 0, None),
        ("", 0, None),
    ],
)
def test_a_worker_that_bitsandbytes_ended_is_called_that(workspace, log: str, age: float, expected: str | None) -> None:
    """Its C code calls exit(1): there is no traceback. What an earlier attempt left in the log is not this one's."""
    run = _run(workspace)
    child = subprocess.Popen([sys.executable, "-c", "import os; os._exit(1)"])
    began = process_started(child.pid)
    child.wait()
    (run.dir / "worker.log").write_text(log)
    run.write_status(state="training", pid=child.pid, pid_started=began, started=time.time() - 1 + age)
    status = run.status()
    assert status.state == "interrupted"
    assert ("bitsandbytes ended the worker at an error of CUDA" in status.message) == (expected is not None)
    assert (expected or "killed, ran out of memory") in status.message


def test_a_reused_pid_is_not_our_worker() -> None:
    started = process_started(os.getpid())
    assert is_alive(os.getpid(), started)
    assert not is_alive(os.getpid(), started - 60)
    assert not is_alive(None, None)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step": 3}'])
def test_a_damaged_status_is_interrupted_not_an_error(workspace, content: str) -> None:
    run = _run(workspace)
    (run.dir / "status.json").write_text(content)
    assert run.status().state == "interrupted"


def test_a_tail_reads_each_line_once_and_waits_for_half_ones(tmp_path) -> None:
    file = tmp_path / "metrics.jsonl"
    tail = Tail(file)
    assert tail.read() == []
    file.write_text('{"step": 1}\n{"st')
    assert tail.read() == [{"step": 1}]
    with file.open("a") as handle:
        handle.write('ep": 2}\ngarbage\n[1]\n{"step": 3}\n')
    assert tail.read() == [{"step": 2}, {"step": 3}]
    assert tail.read() == []
    assert tail.unreadable == 1


def test_a_file_that_was_cut_back_is_read_from_its_start(tmp_path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n')
    tail = Tail(file)
    tail.read()
    file.write_text('{"step": 1}\n')
    assert tail.read() == [{"step": 1}]


def test_json_is_replaced_whole(tmp_path) -> None:
    file = tmp_path / "status.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert read_json(file) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_queued_run_is_stopped_without_starting(workspace) -> None:
    run = _run(workspace)
    Supervisor(workspace).stop(run)
    assert run.status().state == "stopped"
    with pytest.raises(RunError, match="is not running: it is stopped"):
        Supervisor(workspace).stop(run)


def test_only_one_run_holds_the_device(workspace, monkeypatch) -> None:
    """Two starts in the same moment: the first is started, the second waits."""
    first, second = _run(workspace, "first"), _run(workspace, "second")
    started: list[str] = []

    def pretend(self: Supervisor, run: Run) -> None:
        started.append(run.id)
        run.write_status(state="training", pid=os.getpid(), pid_started=process_started(os.getpid()))

    monkeypatch.setattr(Supervisor, "start_worker", pretend)
    one, other = Supervisor(workspace), Supervisor(workspace)
    assert {one.advance(), other.advance()} - {None}
    assert len(started) == 1
    assert sorted(run.status().state for run in (first, second)) == ["queued", "training"]
    waiting = next(run for run in (first, second) if run.status().state == "queued")
    next(run for run in (first, second) if run != waiting).write_status(state="failed")
    assert other.advance() == waiting
    assert [run.id for run in list_runs(workspace)] == sorted((first.id, second.id), reverse=True)


def test_a_clock_that_is_set_does_not_lose_a_worker(monkeypatch) -> None:
    """psutil reckons a start time from the wall clock; ours does not, where the system tells."""
    started = process_started(os.getpid())
    boot_time = psutil.boot_time()
    monkeypatch.setattr(psutil, "boot_time", lambda: boot_time + 3600)
    assert is_alive(os.getpid(), started)


def test_a_run_that_is_being_deleted_is_not_listed(workspace) -> None:
    run = _run(workspace)
    run.dir.rename(run.dir.with_name(f".deleted-{run.id}"))
    assert list_runs(workspace) == []


def test_a_secret_never_reaches_the_recipe(workspace, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run = _run(workspace)
    assert "hf_secret" not in "".join(file.read_text() for file in run.dir.glob("*.*"))
    assert json.loads((run.dir / "labels.json").read_text())["tags"] == []
