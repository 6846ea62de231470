"""The machine is kept awake where the system allows it, and where it does not, that is all that happens."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from core.system.keep_awake import HELD, NOT_HELD, KeptAwake


def _told() -> list[str]:
    told: list[str] = []
    with KeptAwake(told.append):
        deadline = time.monotonic() + 5
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
    return told


def test_where_it_is_possible_it_is_done_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAKEPY_FAKE_SUCCESS", "yes")
    assert _told() == [HELD]


def test_where_it_is_not_it_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAKEPY_FORCE_FAILURE", "yes")
    assert _told() == [NOT_HELD]


def test_a_library_that_is_broken_or_missing_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wakepy", None)
    assert _told() == [NOT_HELD]


def test_a_desktop_that_does_not_answer_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def asleep(**_: Any) -> None:
        time.sleep(30)

    monkeypatch.setattr("wakepy.keep.running", asleep)
    monkeypatch.setattr("core.system.keep_awake.ENDING_SECONDS", 0.05)
    began = time.monotonic()
    with KeptAwake(lambda said: None):
        pass
    assert time.monotonic() - began < 2
