"""Whether a dataset has changed: any file that is written, added or taken away is noticed, also within a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.data import session
from app.train import plan_session
from core.data.changes import content_hash, fingerprint
from core.preflight import dataset_session
from core.recipe import make_recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows" / "train").mkdir(parents=True)
    for name in ("a.jsonl", "b.jsonl", "train/0.jsonl"):
        (tmp_path / "rows" / name).write_text('{"text": "a"}\n')
    return tmp_path / "rows"


def _edit(name: str, keep_newest: bool = False) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        file = folder / name
        before = file.stat().st_mtime_ns
        file.write_text('{"text": "b"}\n')
        later = before - 10**12 if keep_newest else before + 1  # an older time, as of a file that was copied here
        os.utime(file, ns=(later, later))

    return edit


CHANGES: dict[str, Callable[[Path], object]] = {
    "edited in place": _edit("b.jsonl"),
    "edited in place, the time of an older file": _edit("a.jsonl", keep_newest=True),
    "edited in place in a split": _edit("train/0.jsonl"),
    "added": lambda folder: (folder / "c.jsonl").write_text("{}"),
    "deleted": lambda folder: (folder / "a.jsonl").unlink(),
    "renamed": lambda folder: (folder / "a.jsonl").rename(folder / "z.jsonl"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_within_a_folder_is_noticed_by_all_who_ask(change: Callable[[Path], object], folder: Path) -> None:
    recipe = make_recipe({"data.path": str(folder)})
    asked: list[Callable[[], object]] = [
        lambda: fingerprint(folder),
        lambda: content_hash(folder),
        lambda: session._what_matters(recipe),
        lambda: plan_session._what_matters(recipe),
        lambda: dataset_session._what_matters(recipe),
    ]
    before = [ask() for ask in asked]
    assert [ask() for ask in asked] == before
    change(folder)
    assert all(ask() != known for ask, known in zip(asked, before, strict=True))


def test_a_file_is_known_by_its_size_and_time_and_nothing_by_nothing(folder: Path) -> None:
    file = folder / "a.jsonl"
    before = fingerprint(file)
    assert before == fingerprint(file) != fingerprint(folder / "b.jsonl")
    file.write_text("longer than before")
    assert fingerprint(file) != before
    assert fingerprint(None) == fingerprint(folder / "none.jsonl") == ()
