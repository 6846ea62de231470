"""Votes are only ever appended to, survive damage, and come back as they were."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from core.arena.games import Game
from core.arena.votes import Side, Vote, VoteBook, games_of, labels_of
from core.errors import NibbleError
from core.workspace import Workspace

VOTE = Vote(
    left=Side("run:1", "Pirate", "Arr ☠", 3),
    right=Side("base:starter", "Starter", "Hello", 2),
    winner="left",
    prompt="Hi",
    source="typed",
    settings={"temperature": 0.7},
    seed=7,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def test_a_vote_comes_back_as_it_was(workspace: Workspace) -> None:
    VoteBook(workspace).add([VOTE])
    (kept,) = VoteBook(workspace).refresh()
    assert kept.time > 0 and kept.id
    assert Vote(**{**vars(kept), "time": 0.0, "id": ""}) == VOTE
    assert kept.game == Game("run:1", "base:starter", "model_a")


def test_a_damaged_line_is_counted_and_spoils_no_other(workspace: Workspace) -> None:
    book = VoteBook(workspace)
    book.add([VOTE])
    with book.path.open("ab") as file:
        file.write(b'{"winner": "left"}\nnot json\n{"left": {"voi')  # the last one cut off by a crash
    book.add([VOTE, VOTE])
    assert len(book.refresh()) == 3
    assert book.unreadable == 3
    assert VoteBook(workspace).refresh() == book.refresh()


def test_votes_given_at_once_are_all_there(workspace: Workspace) -> None:
    books = [VoteBook(workspace) for _ in range(4)]
    threads = [threading.Thread(target=lambda book=book: [book.add([VOTE]) for _ in range(25)]) for book in books]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(books[0].refresh()) == 100
    assert books[0].unreadable == 0


def test_a_file_that_was_replaced_is_read_anew(workspace: Workspace) -> None:
    book = VoteBook(workspace)
    book.add([VOTE, VOTE])
    assert len(book.refresh()) == 2
    lines = book.path.read_text(encoding="utf-8").splitlines()
    book.path.unlink()
    book.path.write_text(lines[0] + "\n", encoding="utf-8")
    assert len(book.refresh()) == 1


def test_a_vote_that_cannot_be_kept_is_said(workspace: Workspace) -> None:
    book = VoteBook(workspace)
    book.path.mkdir()
    with pytest.raises(NibbleError, match="Could not save"):
        book.add([VOTE])


def test_whose_votes_count_can_be_chosen(workspace: Workspace) -> None:
    def by(judge: str) -> Vote:
        return Vote(**{**vars(VOTE), "judge": judge})

    votes = [by("person"), by("judge:gpt"), by("judge:gpt"), by("import:0a1b")]
    assert len(games_of(votes)) == 4
    assert len(games_of(votes, ["person"])) == 1
    assert len(games_of(votes, ["judge", "import"])) == 3


def test_two_voices_of_one_name_are_told_apart() -> None:
    other = Vote(**{**vars(VOTE), "left": Side("run:2", "Pirate")})
    labels = labels_of([VOTE, other])
    assert labels["base:starter"] == "Starter"
    assert labels["run:1"] != labels["run:2"]


def test_half_a_letter_in_an_answer_is_kept_as_a_vote(workspace: Workspace) -> None:
    odd = Vote(**{**vars(VOTE), "left": Side("run:1", "Pirate", "\ud83d")})
    book = VoteBook(workspace)
    book.add([odd])
    assert len(book.refresh()) == 1 and not book.unreadable
    assert all(json.loads(line) for line in book.path.read_text(encoding="utf-8").splitlines())
