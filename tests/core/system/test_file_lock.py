"""A lock and its file: on Windows it is closed before the file goes, and given back although another has it open."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from core.system import file_lock
from core.system.file_lock import Lock
from tests.core.held_open import WINDOWS


@pytest.mark.parametrize(("system", "was_open"), [(WINDOWS, False), (SimpleNamespace(platform="linux"), True)])
def test_a_lock_is_closed_before_its_file_goes_only_where_it_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: SimpleNamespace, was_open: bool
) -> None:
    monkeypatch.setattr(file_lock, "sys", system)
    held, seen, unlink = Lock(tmp_path / "lock"), [], Path.unlink
    held.take()

    def look(path: Path, missing_ok: bool = False) -> None:
        seen.append(held.held)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", look)
    held.remove()
    assert seen == [was_open]
    assert not held.held
    assert not held.path.exists()


def test_a_lock_whose_file_another_has_opened_is_given_back_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(32, "in use")

    monkeypatch.setattr(file_lock, "sys", WINDOWS)
    monkeypatch.setattr(Path, "unlink", refuse)
    held = Lock(tmp_path / "lock")
    held.take()
    held.remove()
    assert Lock(tmp_path / "lock").take(0.0)
