"""What is read of a card while it trains, whatever its driver tells, and what the charts show of it."""

import os
from typing import Any

import pytest
import torch

from app.run_view import html
from app.run_view.drawings import RunDrawings
from core.runs.device_lock import device_for_a_run, hold
from core.runs.heartbeat import read_heartbeat
from core.runs.tail import Tail
from core.system.hardware import device
from core.workspace import Workspace
from tests.gpu.in_process import settings, train
from tests.gpu.machines import on
from tests.gpu_standin.machine import NAMED as NAMED_BY_DRIVER
from tests.gpu_standin.machine import NOBODY_NAMED, USE_UNKNOWN, Card

MIB = 2**20
CONTEXT = 450 * MIB
DRAWN = ("tensors", "reserved by torch", "used by the process")
A100 = Card("NVIDIA A100 80GB PCIe", (8, 0), 81920, slice_mib=9984)
GB10 = Card("NVIDIA GB10", (12, 1), 122880)
NAMED = [
    pytest.param(True, marks=on(), id="a driver that tells all"),
    pytest.param(False, marks=on(has_sensors=False), id="no sensors"),
    pytest.param(True, marks=on(A100), id="a MIG slice"),  # whose sensors are the card's
    pytest.param(True, marks=on(GB10, is_unified=True), id="memory shared with the processor"),
]


def _samples(workspace: Any, tiny: Any, rows_file: Any) -> tuple[Any, list[dict[str, Any]]]:
    run = train(workspace, settings(tiny, rows_file))
    assert run.status().state == "finished", run.status().message
    assert "can no longer be read" not in (run.dir / "events.jsonl").read_text("utf-8")
    rows = (run.dir / "memory.jsonl").read_bytes().splitlines(keepends=True)
    for count in range(1, len(rows) + 1):  # as a page sees the file grow, before the card is used and after
        (run.dir / "memory.jsonl").write_bytes(b"".join(rows[:count]))
        drawn = RunDrawings("cuda").parts(run)["memory"]
    assert all(f'data-name="{name}' in drawn for name in DRAWN)
    return run, Tail(run.dir / "memory.jsonl").read()


@pytest.mark.parametrize("has_sensors", NAMED)
def test_where_the_driver_names_processes_the_run_is_what_it_says(
    has_sensors, workspace, tiny, rows_file, machine
) -> None:
    run, rows = _samples(workspace, tiny, rows_file)
    own = next(each for each in machine.process if each.pid == os.getpid())
    assert rows[-1]["reserved_bytes"] > 0
    for row in (each for each in rows if each["reserved_bytes"]):  # the first is read before the card is used
        beside = row["process_bytes"] - row["reserved_bytes"] - CONTEXT
        assert 0 <= beside <= max(own.managed, 16 * MIB), "paged states are managed memory"
    told = (61, 214.5) if has_sensors else (None, None)
    assert (rows[-1]["temperature_celsius"], rows[-1]["power_watts"]) == told
    pulse = read_heartbeat(run)
    assert pulse is not None
    assert ("61 °C" in html._card_state(pulse)) == has_sensors


@pytest.mark.parametrize(
    "naming",
    [
        pytest.param(USE_UNKNOWN, marks=on(naming=USE_UNKNOWN), id="Windows and WSL"),
        pytest.param(NOBODY_NAMED, marks=on(naming=NOBODY_NAMED), id="a container"),
    ],
)
def test_where_the_driver_hides_processes_the_run_is_what_came_on_top(naming, workspace, tiny, rows_file) -> None:
    _, rows = _samples(workspace, tiny, rows_file)
    for row in rows:
        assert row["process_bytes"] == max(0, row["device_bytes"] - rows[0]["device_bytes"])
    assert rows[-1]["process_bytes"] >= rows[-1]["reserved_bytes"] - rows[0]["reserved_bytes"]


@on(GB10, is_unified=True)
def test_a_card_without_memory_of_its_own_has_the_machines() -> None:
    import psutil

    assert (device().name, device().total_bytes, device().unified) == (GB10.name, psutil.virtual_memory().total, True)


@on(A100)
def test_a_slice_is_a_card_of_its_own() -> None:
    assert (device().name, device().total_bytes) == (A100.name, A100.slice_mib * MIB)


@pytest.mark.parametrize(
    "naming", [pytest.param(each, marks=on(naming=each)) for each in (NAMED_BY_DRIVER, USE_UNKNOWN, NOBODY_NAMED)]
)
def test_what_the_chat_takes_is_free_for_a_run_though_the_driver_hides_it(naming: int, workspace: Workspace) -> None:
    with hold(workspace, "chat", "SmolLM2"):
        taken = torch.empty(500 * MIB, dtype=torch.uint8, device="cuda")
        there = device_for_a_run(workspace).free_bytes - device().free_bytes
        del taken
    assert there >= 500 * MIB
    assert device_for_a_run(workspace).free_bytes == device().free_bytes
