"""Kept datasets: copies by content, several files as one, names in any language that stay in the workspace."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from core.data.read import open_source
from core.data.store import find_dataset, keep, keep_several, kept_datasets, safe_name
from core.errors import DataError, NibbleError
from core.workspace import Workspace
from tests.core.data.read.odd_parts import LINES, TABLE


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


def _file(folder: Path, name: str, content: str = LINES) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(content)
    return path


def test_several_files_are_one_dataset(workspace: Workspace, tmp_path: Path) -> None:
    files = [_file(tmp_path / "up", "1"), _file(tmp_path / "up", "2", TABLE)]
    kept = keep_several(workspace, [(files[0], "rows.jsonl"), (files[1], "more rows.csv")])
    for file in files:
        file.unlink()
    assert kept.name == kept.path.name == "more rows and 1 more"
    assert [file.name for file in open_source(kept.path).files] == ["more rows.csv", "rows.jsonl"]
    assert sum(1 for _ in open_source(kept.path).rows()) == 6
    assert kept_datasets(workspace) == [kept.path]


def test_the_same_files_are_kept_once_in_whatever_order(workspace: Workspace, tmp_path: Path) -> None:
    pairs = [(_file(tmp_path, "a.jsonl"), "a.jsonl"), (_file(tmp_path, "b.csv", TABLE), "b.csv")]
    assert keep_several(workspace, pairs) == keep_several(workspace, pairs[::-1])
    assert len(kept_datasets(workspace)) == 1
    other = keep_several(workspace, [pairs[0], (_file(tmp_path, "c.csv", TABLE + "x,y\n"), "b.csv")])
    assert len(kept_datasets(workspace)) == 2
    assert other.sha256 != keep_several(workspace, pairs).sha256


def test_files_of_one_name_stay_apart(workspace: Workspace, tmp_path: Path) -> None:
    first, second = _file(tmp_path / "x", "a.jsonl"), _file(tmp_path / "y", "a.jsonl", LINES * 2)
    kept = keep_several(workspace, [(first, "a.jsonl"), (second, "A.jsonl")])
    assert len(list(kept.path.iterdir())) == 2
    assert sum(1 for _ in open_source(kept.path).rows()) == 9


def test_one_file_alone_is_kept_as_a_file(workspace: Workspace, tmp_path: Path) -> None:
    kept = keep_several(workspace, [(_file(tmp_path, "up"), "rows.jsonl")])
    assert kept.path.is_file()
    assert kept == keep(workspace, tmp_path / "up", "rows.jsonl")


def test_a_folder_is_kept_as_one_dataset(workspace: Workspace, tmp_path: Path) -> None:
    _file(tmp_path / "mine", "a.jsonl")
    _file(tmp_path / "mine", ".hidden")
    kept = keep(workspace, find_dataset(str(tmp_path / "mine")))
    assert kept.name == "mine"
    assert [file.name for file in kept.path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize("name", ["대화 모음.jsonl", "会話.csv", "Gespräche.json", "données (2).parquet"])
def test_a_name_in_any_language_stays(workspace: Workspace, tmp_path: Path, name: str) -> None:
    kept = keep(workspace, _file(tmp_path, "upload"), unicodedata.normalize("NFD", name))
    assert kept.name == name.replace("(", "_").replace(")", "_")
    assert kept_datasets(workspace) == [kept.path]


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.jsonl",
        "a/b.jsonl",
        "C:\\x.jsonl",
        "...",
        "",
        "x" * 500 + ".jsonl",
        "대" * 300 + ".jsonl",
        "con.jsonl",
    ]
    + ["\u202egnp.jsonl", "a\nb.jsonl", ".copy-x", "😀.jsonl", "NUL", " . "],
)
def test_a_hostile_name_stays_in_the_workspace(workspace: Workspace, tmp_path: Path, name: str) -> None:
    source = _file(tmp_path, "upload")
    one = keep(workspace, source, name)
    several = keep_several(workspace, [(source, name), (source, name)])
    assert one.path.parent.parent == several.path.parent.parent == workspace.datasets
    assert len(kept_datasets(workspace)) == 2
    assert len(list(several.path.iterdir())) == 2
    assert len(os.fsencode(one.path.name)) <= 160


def test_a_name_keeps_its_suffix_and_is_none_that_windows_reserves() -> None:
    assert safe_name("a" * 300 + ".jsonl").endswith("a.jsonl")
    assert safe_name("con.jsonl") == "_con.jsonl"
    assert safe_name("  ") == "dataset"


def test_a_copy_that_fails_leaves_nothing(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    pairs = [(_file(tmp_path, "a.jsonl"), "a.jsonl"), (_file(tmp_path, "b.csv", TABLE), "b.csv")]
    for attempt in (lambda: keep(workspace, pairs[0][0]), lambda: keep_several(workspace, pairs)):
        with pytest.raises(DataError, match="cannot be copied into the workspace: No space left"):
            attempt()
    assert kept_datasets(workspace) == []
    assert [path for path in workspace.datasets.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("path", ["no-such-file.jsonl", "x" * 5000, "~nobody-here/x", "a\0b", ""])
def test_a_dataset_that_is_not_there_is_said(path: str) -> None:
    with pytest.raises(NibbleError, match="neither a sample nor a file"):
        find_dataset(path)
