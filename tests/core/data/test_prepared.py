"""Prepared data is the same from the workspace as made anew, and is made anew wherever it could be anything else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from core.data import prepared as module
from core.data.cache import PreparedCache
from core.data.check import Check, Training, check, tally
from core.data.prepared import Prepared, key_of, prepare_data
from core.recipe import DataSettings, make_recipe
from core.runs.create import create_run
from core.runs.store import Run
from core.train.rows import Rows, prepare_rows
from core.workspace import Workspace
from tests.tiny import chat_rows, write_jsonl

pytestmark = pytest.mark.usefixtures("everything_is_kept")


@pytest.fixture
def everything_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_FROM_SECONDS", 0.0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Rows as they come, and one that is cut, one that has no room for its reply, one that counts less, one broken."""
    long = "a word and another " * 60
    odd = [("Hi", long, 1.0), (long, "Hello", 1.0), ("Hi there", "Hello!", 0.25), ("", "", 1.0)]
    talks = [
        [{"role": "user", "content": ask}, {"role": "assistant", "content": reply, "weight": weight}]
        for ask, reply, weight in odd
    ]
    folder = tmp_path / "datasets" / "abc"
    folder.mkdir(parents=True)
    return write_jsonl(folder / "rows.jsonl", [*chat_rows(30), *({"messages": talk} for talk in talks), {"odd": 1}])


@pytest.fixture
def run(file: Path, tmp_path: Path) -> Callable[[], Run]:
    recipe = make_recipe({"data.path": str(file), "data.max_length": 128})
    there = {"file": str(file), "sha256": "x", "name": file.name}
    return lambda: create_run(Workspace(tmp_path), recipe, there)


def _all(rows: Rows) -> Any:
    return list(rows.train), rows.train.lengths, list(rows.held_out), rows.prompts, rows.counts


def _told(run: Run) -> list[str]:
    return [json.loads(line)["message"] for line in (run.dir / "events.jsonl").read_text().splitlines()]


def _same(one: Prepared, other: Prepared) -> bool:
    pairs = [(list(each.rendered.usable), each.rendered.dropped, list(each.questions)) for each in (one, other)]
    return pairs[0] == pairs[1] and one.findings == other.findings


def test_a_run_gets_the_same_from_the_workspace(run: Callable[[], Run], tokenizer: Any, tmp_path: Path) -> None:
    first, second = run(), run()
    made, read = (prepare_rows(each, each.recipe(), tokenizer) for each in (first, second))
    assert made.counts["dropped"] >= 2 and made.counts["truncated"] and made.prompts and len(made.held_out)
    assert any(row.weights for row in [*made.train, *made.held_out])
    assert _all(read) == _all(made)
    new = [message for message in _told(second) if message not in _told(first)]
    assert len(new) == 1 and new[0].startswith("It was prepared earlier, and read in ")
    assert [message for message in _told(second) if message not in new] == _told(first)
    assert len(list((tmp_path / "cache" / "prepared").iterdir())) == 1


@pytest.mark.parametrize("settings", [{}, {"max_length": 64}, {"train_on": "everything"}])
def test_a_run_gets_what_the_check_has_rendered(
    settings: dict[str, Any], file: Path, tokenizer: Any, tmp_path: Path
) -> None:
    chosen, cache = DataSettings(**settings), PreparedCache.of(tmp_path)
    check(file, chosen, deepcopy(tokenizer), cache=cache)
    read = prepare_data(file, chosen, deepcopy(tokenizer), cache)
    made = prepare_data(file, chosen, deepcopy(tokenizer), None)
    assert read.seconds is not None and made.seconds is None and made.rendered.dropped
    assert _same(read, made) and read.named == made.named


def test_a_check_keeps_no_more_tokens_than_it_may(
    file: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "MOST_KEPT", 1000)
    check(file, DataSettings(), tokenizer, cache=PreparedCache.of(tmp_path))
    assert prepare_data(file, DataSettings(), tokenizer, PreparedCache.of(tmp_path)).seconds is None


def test_a_file_that_is_written_to_while_it_is_checked_is_not_kept(file: Path, tokenizer: Any, tmp_path: Path) -> None:
    cache = PreparedCache.of(tmp_path)
    job = Check(file, DataSettings(), tokenizer, Training(), cache=cache)
    for report in job.reports():
        if report.stage == "done":
            write_jsonl(file, chat_rows(31))
    assert not cache.folder.exists()


def test_all_that_decides_the_rendering_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(module, "sha256_of_all", lambda files: str(hashed.extend(name for _, name in files)))
    module._code_hash.__wrapped__()
    assert {"data/read/languages.txt", "text/encodings.py", "untrusted/chat_templates.py"} <= set(hashed)
    assert not [name for name in hashed if "__pycache__" in name]


def test_the_pieces_of_a_plain_text_come_back(tokenizer: Any, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "texts.jsonl", [{"text": f"{number} sheep and " * 40} for number in range(5)])
    settings, cache = DataSettings(max_length=64), PreparedCache.of(tmp_path)
    made, read = (prepare_data(file, settings, tokenizer, cache) for _ in range(2))
    assert made.seconds is None and read.seconds is not None
    assert len(read.rendered.usable) > 5 and _same(made, read)
    assert read.rendered.usable.tokens == made.rendered.usable.tokens
    assert sum(read.rendered.usable.trained) == sum(made.rendered.usable.trained)


def test_what_matters_makes_another_key_and_nothing_else_does(file: Path, tokenizer: Any, tmp_path: Path) -> None:
    def key(**settings: Any) -> str | None:
        return key_of(file, DataSettings(**settings), tokenizer)

    usual = key()
    assert usual == key(eval_fraction=0.3, eval_max_rows=5, path="elsewhere")
    assert len({usual, key(max_length=100), key(train_on="everything"), key(system="leave_out")}) == 4
    templated, spoken = deepcopy(tokenizer), deepcopy(tokenizer)
    templated.chat_template += " "
    spoken.add_tokens(["<new>"])
    assert len({usual, *(key_of(file, DataSettings(), each) for each in (templated, spoken))}) == 3
    folder = tmp_path / "several"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", chat_rows(3))
    several = key_of(folder, DataSettings(), tokenizer)
    write_jsonl(folder / "b.jsonl", chat_rows(3))
    assert several != key_of(folder, DataSettings(), tokenizer)
    write_jsonl(file, chat_rows(31))
    assert usual != key()
    file.unlink()
    assert key() is None


@pytest.mark.parametrize("damage", ["cut", "changed", "no sum", "emptied"])
def test_a_damaged_entry_is_made_anew(damage: str, file: Path, tokenizer: Any, tmp_path: Path) -> None:
    cache = PreparedCache.of(tmp_path)
    made = prepare_data(file, DataSettings(), tokenizer, cache)
    [rows] = cache.folder.glob("*/rows.arrow")
    content = rows.read_bytes()
    if damage == "no sum":
        (rows.parent / "sha256").unlink()
    else:
        middle = len(content) // 2
        cut = {"cut": content[:middle], "changed": content[:middle] + b"\x7f" + content[middle + 1 :], "emptied": b""}
        rows.write_bytes(cut[damage])
    again = prepare_data(file, DataSettings(), tokenizer, cache)
    assert again.seconds is None and _same(again, made)
    assert prepare_data(file, DataSettings(), tokenizer, cache).seconds is not None


def test_the_folder_is_bounded_and_what_was_used_last_stays(file: Path, tokenizer: Any, tmp_path: Path) -> None:
    def use(max_length: int, most: int = 2**30) -> bool:
        cache = PreparedCache(tmp_path / "kept", most)
        return prepare_data(file, DataSettings(max_length=max_length), tokenizer, cache).seconds is not None

    assert not any(use(length) for length in (100, 200, 300))
    entries = sorted((tmp_path / "kept").iterdir(), key=lambda entry: entry.stat().st_mtime)
    for age, entry in enumerate(reversed(entries)):
        os.utime(entry, (1000 - age, 1000 - age))
    left = tmp_path / "kept" / ".new-left"
    left.mkdir()
    os.utime(left, (1000, 1000))
    assert use(100)  # the oldest is now the newest
    size = max(sum(file.stat().st_size for file in entry.iterdir()) for entry in entries)
    assert not use(400, most=int(2.5 * size))
    assert not left.exists() and len(list((tmp_path / "kept").iterdir())) == 2
    assert use(100) and use(400) and not use(200)


def test_where_nothing_can_be_kept_nothing_is(file: Path, tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder would be")
    for cache in (None, PreparedCache(tmp_path / "taken"), PreparedCache(tmp_path / "small", 10)):
        assert all(prepare_data(file, DataSettings(), tokenizer, cache).seconds is None for _ in range(2))
    assert PreparedCache.beside(tmp_path / "rows.jsonl") is None and PreparedCache.beside(file) == PreparedCache.of(
        tmp_path
    )


def test_what_is_made_at_once_is_not_kept(
    file: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_FROM_SECONDS", 1000.0)
    prepare_data(file, DataSettings(), tokenizer, PreparedCache.of(tmp_path))
    assert not (tmp_path / "cache").exists()
