"""The workspace's copies of datasets: named by content, safe under any name, found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.data.store import find_dataset, keep, kept_datasets
from core.errors import NibbleError
from core.workspace import Workspace


def test_a_dataset_is_kept_by_its_content(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    file = tmp_path / "my data.jsonl"
    file.write_text('{"prompt": "Hi", "completion": "Hello!"}')
    kept = keep(workspace, file)
    file.unlink()
    assert kept.path.read_text().startswith('{"prompt"')
    assert kept_datasets(workspace) == [kept.path]


@pytest.mark.parametrize("name", ["../../evil.jsonl", "a/b.jsonl", "C:\\x.jsonl", "...", "x" * 500 + ".jsonl"])
def test_a_hostile_file_name_stays_in_the_workspace(tmp_path: Path, name: str) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    file = tmp_path / "upload"
    file.write_text("x")
    kept = keep(workspace, file, name)
    assert kept.path.parent.parent == workspace.datasets


def test_a_dataset_that_is_not_there_is_said() -> None:
    for path in ("no-such-file.jsonl", "x" * 5000, "~nobody-here/x", "a\0b", ""):
        with pytest.raises(NibbleError, match="neither a sample nor a file"):
            find_dataset(path)
