"""Whether a paged optimizer works is tried in a process that may die of it, before any run does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from core.system import managed_memory, measured_card
from core.system.hardware import Device
from core.system.managed_memory import pages_states, step_paged, try_managed_memory, try_once

CARD = Device("cuda", "GRID T4-8Q", 8 * 2**30, 8 * 2**30)
# As bitsandbytes ends a process, and what a library of C says last on standard error.
TOLD = "Error operation not supported at line 75 in file /src/csrc/pythonInterface.cpp"
DIES = f"print('reached', flush=True); import os; os.write(2, b'{TOLD}'); os._exit(1)"


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measured_card, "FILE", tmp_path / "nibble-gpu.json")
    monkeypatch.setattr(measured_card, "cuda_driver", lambda: "580.1")


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes these lines the process that tries; it returns how often it was started."""

    def instead(code: str) -> list[str]:
        started: list[str] = []

        def as_process(module: str) -> dict[str, Any]:
            started.append(module)
            return {"args": [sys.executable, "-c", code]}

        monkeypatch.setattr(managed_memory, "as_process", as_process)
        return started

    return instead


@pytest.mark.parametrize(
    ("code", "works"),
    [
        ("print('reached'); print('works')", True),
        (DIES, False),
        ("print('reached', flush=True); import os; os.abort()", False),
        ("print('reached', flush=True); import os; os.kill(os.getpid(), 9)", None),
        ("print('reached'); print('wrong')", False),
        ("print('reached'); raise ImportError('libnvJitLink.so')", None),
        (DIES.replace("operation not supported", "out of memory"), None),
        ("raise ImportError('no torch')", None),
        ("", None),
    ],
)
def test_what_the_process_came_to_is_remembered(child: Any, code: str, works: bool | None) -> None:
    child(code)
    assert pages_states(CARD)
    assert try_managed_memory(CARD) is works
    assert measured_card.measured(CARD).get("managed_memory") is works
    assert pages_states(CARD) is (works is not False)


def test_the_answer_holds_in_this_process_where_no_file_can_be_written(
    child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(measured_card, "write_json", refuses)
    monkeypatch.setattr(measured_card, "_here", {})
    child(DIES)
    assert try_managed_memory(CARD) is False
    assert not pages_states(CARD)


def test_a_process_that_hangs_says_nothing(child: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managed_memory, "PATIENCE_SECONDS", 0.5)
    child("import time; print('reached', flush=True); time.sleep(60)")
    assert try_managed_memory(CARD) is None
    assert pages_states(CARD)


def test_before_a_run_it_is_tried_once(child: Any) -> None:
    started = child(DIES)
    try_once(CARD)
    try_once(CARD)
    assert len(started) == 1
    try_once(Device("cpu", "CPU", 2**34, 2**33))
    assert len(started) == 1


def test_a_cpu_pages_nothing() -> None:
    assert not pages_states(Device("cpu", "CPU", 2**34, 2**33))


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_the_step_is_adamws() -> None:
    assert step_paged("cpu")
