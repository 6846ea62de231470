"""Every odd file gets one sentence or rows that add up: never a traceback, never a hang."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest

from core.data.conversation import Unreadable
from core.data.read import open_source
from core.errors import DataError
from tests.core.data.read.odd_files import ODD_FILES, Odd

SECONDS = 10
odd_files = pytest.mark.parametrize("odd", ODD_FILES, ids=lambda odd: f"{odd.name}: {odd.kind}")


def _read(path: Path) -> tuple[list[Any], set[str]]:
    source = open_source(path)
    rows = list(source.rows())
    assert sum(file.rows for file in source.files) == len(rows)
    return rows, {finding.code for finding in source.findings()}


def _in_time(path: Path) -> Any:
    """What reading gives or raises, within ten seconds."""
    outcome: list[Any] = []

    def read() -> None:
        try:
            outcome.append(_read(path))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert outcome, f"reading {path.name} takes longer than {SECONDS} s"
    return outcome[0]


@odd_files
def test_an_odd_file_gives_a_sentence_or_rows_that_add_up(odd: Odd, tmp_path: Path) -> None:
    path = odd.write(tmp_path)
    outcome = _in_time(path)
    if odd.said:
        assert isinstance(outcome, DataError), outcome
        message = str(outcome)
        assert all(words.lower() in message.lower() for words in (path.name, *odd.said)), message
        assert "\n" not in message and len(message) < 400 and str(tmp_path) not in message
        return
    if isinstance(outcome, BaseException):
        raise outcome
    rows, findings = outcome
    broken = [row for row in rows if isinstance(row, Unreadable)]
    assert (len(rows), len(broken)) == (odd.rows, odd.unreadable), broken
    assert all(row.reason for row in broken)
    assert odd.finding in findings or not odd.finding, findings


@odd_files
def test_an_odd_file_with_further_damage_gives_a_sentence_or_rows(odd: Odd, tmp_path: Path) -> None:
    path = odd.write(tmp_path)
    if not path.is_file() or path.is_symlink() or not path.stat().st_size:
        return
    whole, chance = path.read_bytes(), random.Random(odd.kind)
    for _ in range(3):
        damaged = bytearray(whole)
        at = chance.randrange(len(whole))
        damaged[at : at + chance.choice([0, 1, 20])] = chance.choice([b"", b'"', b"\0", b"\n", b"\xff", b"{"])
        path.write_bytes(damaged[: chance.choice([len(damaged), chance.randrange(len(damaged) + 1)])])
        outcome = _in_time(path)
        assert isinstance(outcome, DataError | tuple), outcome


def test_the_corpus_holds_sixty_kinds_each_with_its_line() -> None:
    assert len(ODD_FILES) >= 60
    assert len({odd.kind for odd in ODD_FILES}) == len(ODD_FILES)
    assert all(odd.kind and (bool(odd.said) != bool(odd.rows)) for odd in ODD_FILES)
