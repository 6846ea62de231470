"""What is open cannot be moved or removed on Windows, for a moment: it is tried again."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import workspace
from core.workspace import move, patiently
from tests.core.held_open import WINDOWS, Scanner


def test_what_a_virus_scanner_holds_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PermissionError):
        patiently(Scanner(1).look)  # elsewhere a refusal is one
    monkeypatch.setattr(workspace, "sys", WINDOWS)
    assert patiently(Scanner(3).look) == "done"
    with pytest.raises(PermissionError):
        patiently(Scanner(1000).look, seconds=0.05)


def test_a_folder_is_moved_once_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "sys", WINDOWS)
    (tmp_path / "fresh").mkdir()
    scanner, rename = Scanner(3), Path.rename

    def later(path: Path, to: Path) -> Path:
        scanner.look()
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", later)
    move(tmp_path / "fresh", tmp_path / "final")
    assert (tmp_path / "final").is_dir()
