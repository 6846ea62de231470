"""What a run will find free: what the device's present holder uses counts as free."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.basemodel.find import find_model
from core.launch.submit import refuse
from core.memory.device import this_machine
from core.memory.estimate import read_plan_budget
from core.recipe import Recipe, make_recipe
from core.runs import device_lock
from core.runs.device_lock import Holder, device_for_a_run
from core.system.hardware import Device, ReadingError, Used
from core.workspace import Workspace

ME = 7
CARD = Device("cuda", "Card", 12 * 2**30, 5 * 2**30)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_lock, "device", lambda: CARD)
    monkeypatch.setattr(device_lock, "device_used_bytes", lambda card, pid: Used({ME: 6 * 2**30}.get(pid), 7 * 2**30))


@pytest.mark.parametrize(
    ("kind", "pid", "gib"),
    [("chat", ME, 11), ("run", ME, 11), ("chat", 1, 5), ("export", None, 5), (None, None, 5)],
)
def test_whoever_has_the_device_gives_way(
    card: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str | None, pid: int | None, gib: int
) -> None:
    at_it = None if kind is None else Holder(kind, "SmolLM2", pid)
    monkeypatch.setattr(device_lock, "holder", lambda workspace: at_it)
    workspace = Workspace.open(tmp_path)
    assert device_for_a_run(workspace).free_bytes == gib * 2**30
    assert read_plan_budget(Recipe(), this_machine(CARD, (8, 6)), workspace).bytes == gib * 2**30


def test_a_reading_that_fails_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(card: Device, pid: int) -> Used:
        raise ReadingError("gone")

    monkeypatch.setattr(device_lock, "device", lambda: CARD)
    monkeypatch.setattr(device_lock, "holder", lambda workspace: Holder("chat", "SmolLM2", 1))
    monkeypatch.setattr(device_lock, "device_used_bytes", fails)
    assert device_for_a_run(Workspace.open(tmp_path)) == CARD


def test_a_run_may_be_queued_while_the_chat_fills_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crowded = Device("cpu", "CPU", 16 * 2**30, 2**20)
    monkeypatch.setattr(device_lock, "device", lambda: crowded)
    monkeypatch.setattr(device_lock, "holder", lambda workspace: Holder("run", "Pirate", ME))
    monkeypatch.setattr(device_lock, "device_used_bytes", lambda device, pid: Used(8 * 2**30, 2**33))
    recipe = make_recipe({"model": "starter", "data": {"path": "pirate"}})
    assert refuse(recipe, find_model(recipe.model), Workspace.open(tmp_path))
