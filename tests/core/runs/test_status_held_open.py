"""The status of a run is written although, on Windows, somebody looks at it just then."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import workspace
from core.runs import store
from core.runs.store import Run
from core.workspace import read_json
from tests.core.held_open import WINDOWS, Scanner


def test_a_status_that_somebody_looks_at_is_written_with_the_next_and_its_end_in_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, scanner, write = Run(tmp_path), Scanner(0), store.write_json

    def later(path: Path, value: object) -> None:
        scanner.look()
        write(path, value)

    monkeypatch.setattr(store, "write_json", later)
    run.write_status(state="training", message="Loading.", step=1)
    scanner.left = 1
    with pytest.raises(PermissionError):
        run.write_status(step=2)  # elsewhere a refusal is one
    monkeypatch.setattr(store, "sys", WINDOWS)
    monkeypatch.setattr(workspace, "sys", WINDOWS)
    scanner.left = 10**9
    run.write_status(step=3, message="Planning.")
    assert read_json(tmp_path / "status.json")["step"] == 1
    scanner.left = 0
    run.write_status(step=4)
    assert read_json(tmp_path / "status.json") == {"state": "training", "message": "Planning.", "step": 4}
    scanner.left = 3
    run.write_status(state="finished")
    assert read_json(tmp_path / "status.json")["state"] == "finished"
    scanner.left = 10**9
    with pytest.raises(PermissionError):
        run.write_status(state="preparing")
