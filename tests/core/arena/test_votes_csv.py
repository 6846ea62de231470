"""Votes as CSV: what cannot be read is counted with its reason, and hostile files are met."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as some

from core.arena.games import Game
from core.arena.votes import Side, Vote
from core.arena.votes_csv import LONGEST_NAME, as_votes, read_table, write_table
from core.errors import DataError

HEAD = "model_a,model_b,winner\n"


def _file(tmp_path: Path, content: str | bytes, name: str = "votes.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_what_cannot_be_read_is_counted_with_its_reason(tmp_path: Path) -> None:
    rows = "a,b,model_a\nb,a,tie\na,b,unparsed\na,a,tie\n,b,tie\na,b,\na,b\na,b,tie (bothbad)\n"
    table = read_table(_file(tmp_path, f"{HEAD}{rows}"))
    assert table.games == [Game("a", "b", "model_a"), Game("b", "a", "tie"), Game("a", "b", "both_bad")]
    assert table.unreadable == len(table.reasons) == 5
    for said in ("'unparsed'", "on both sides", "model_a is empty", "winner is empty", "2 cells"):
        assert any(said in reason for reason in table.reasons), said
    assert table.summary == "3 votes read, 5 rows skipped."


@pytest.mark.parametrize(
    "content",
    [
        "Model_A;Model_B;Winner\r\nä;b;MODEL_A\r\n".encode("utf-8-sig"),
        "model_a\tmodel_b\twinner\nä\tb\tmodel_a\n".encode("utf-16"),
        "id,winner,model_b,model_a\n1,model_a,b,ä\n".encode("cp1252"),
    ],
)
def test_any_encoding_delimiter_and_order_of_columns(tmp_path: Path, content: bytes) -> None:
    assert read_table(_file(tmp_path, content)).games == [Game("ä", "b", "model_a")]


def test_a_huge_name_is_one_row_not_read(tmp_path: Path) -> None:
    table = read_table(_file(tmp_path, f"{HEAD}a,b,tie\n{'x' * 500_000},b,tie\n"))
    assert (len(table.games), table.unreadable) == (1, 1)
    assert f"{LONGEST_NAME} are allowed" in table.reasons[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (HEAD.encode(), "contains no rows. It should have one vote per row"),
        (b"model_a,winner\na,tie\n", "no column 'model_b'"),
        (b"model_a,model_b,winner\na,b,draw\n", "contains no readable votes. Row 1: the winner is 'draw'"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "is really an image"),
    ],
)
def test_a_file_without_votes_is_refused_in_a_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_table(_file(tmp_path, content))


def test_no_such_file_and_no_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file gone.csv"):
        read_table(tmp_path / "gone.csv")
    with pytest.raises(DataError, match="is not a table"):
        read_table(_file(tmp_path, "{}", "votes.json"))


NAMES = some.text(some.characters(codec="utf-8", exclude_categories=["Cc"]) | some.sampled_from("\r\n\t"), max_size=12)
# What the reader of tables takes for no text at all, or for a list.
NAMES = NAMES.filter(lambda name: name.strip().lower() != "nan" and name.strip()[:1] not in ("[", "{"))
LINES = some.lists(NAMES, max_size=9).map(lambda cells: ",".join(cells).encode())


@settings(max_examples=30, deadline=None)
@given(some.binary(max_size=300) | LINES)
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("any") / "votes.csv"
    for whole in (content, HEAD.encode() + content, HEAD.encode() + b"a,b,tie\n" + content):
        file.write_bytes(whole)
        try:
            table = read_table(file)
        except DataError as error:
            assert str(error)
        else:
            assert table.games and table.unreadable >= len(table.reasons)


@settings(max_examples=30, deadline=None)
@given(some.lists(some.tuples(NAMES, NAMES, some.sampled_from(["left", "right", "tie", "both_bad"])), min_size=1))
def test_any_names_go_out_and_come_in_again(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    on_a_line = [(" ".join(left.split()), " ".join(right.split()), winner) for left, right, winner in rows]
    votes = [_vote(left, right, winner) for left, right, winner in on_a_line if left and right and left != right]
    assume(votes)
    file = _file(tmp_path_factory.mktemp("any"), write_table(votes))
    read = read_table(file)
    assert len(read.games) + read.unreadable == len(votes)
    assert read.games == [vote.game for vote in votes]


def _vote(left: str, right: str, winner: str) -> Vote:
    return Vote(Side(left, left), Side(right, right), winner)  # type: ignore[arg-type]


def test_what_is_written_is_read_back_and_is_no_formula(tmp_path: Path) -> None:
    hostile = ["=cmd|' /C calc'!A0", "@SUM(1)", "-1+1", 'a "quoted", name of one line', "'plain quote", "run:1/best"]
    votes = [_vote(name, "base", "left") for name in hostile] + [_vote("base", "x", "both_bad"), _vote("x", "y", "tie")]
    text = write_table(votes)
    cells = [cell for row in list(csv.reader(io.StringIO(text)))[1:] for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    read = read_table(_file(tmp_path, text))
    assert read.games == [vote.game for vote in votes] and not read.unreadable


def test_a_file_is_imported_once(tmp_path: Path) -> None:
    file = _file(tmp_path, f"{HEAD}a,b,model_b\n")
    games = read_table(file).games
    votes = as_votes(games, file, [])
    assert [vote.game for vote in votes] == games
    assert {vote.kind for vote in votes} == {"import"}
    with pytest.raises(DataError, match="imported before: its 1 votes"):
        as_votes(games, file, votes)
