"""Votes as CSV, in and out: `model_a,model_b,winner`. A row that cannot be read is counted, with the reason."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.arena.games import Game, Winner
from core.arena.votes import Side, Vote
from core.data.conversation import Unreadable
from core.data.read import Source, open_source
from core.data.read.encoding import EncodingUnsure
from core.data.read.kinds import suffix_of
from core.errors import DataError

COLUMNS = ("model_a", "model_b", "winner")
LONGEST_NAME = 200
MOST_REASONS = 20
_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".gz", ".zip")
# The second spelling of both_bad is what Chatbot Arena's files say.
_WINNERS: dict[str, Winner] = {"model_a": "model_a", "model_b": "model_b", "tie": "tie"}
_WINNERS |= {"tie (bothbad)": "both_bad", "both_bad": "both_bad", "bothbad": "both_bad"}
_WRITTEN = {"left": "model_a", "right": "model_b", "tie": "tie", "both_bad": "tie (bothbad)"}
# A spreadsheet takes a cell that begins so for a formula; a quote before it makes it text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass
class Table:
    """What a file holds: its games, and how many rows are none; the first of those with their reasons."""

    games: list[Game] = field(default_factory=list)
    unreadable: int = 0
    reasons: list[str] = field(default_factory=list)

    def refuse(self, reason: str) -> None:
        """Count one row that is no vote."""
        self.unreadable += 1
        if len(self.reasons) < MOST_REASONS:
            self.reasons.append(reason)

    @property
    def summary(self) -> str:
        """What was read, in a sentence."""
        read = f"{len(self.games):,} votes read"
        return f"{read}, {self.unreadable:,} rows skipped." if self.unreadable else f"{read}."


def read_table(path: Path) -> Table:
    """The votes in a CSV or TSV file of any encoding and delimiter.

    Raises DataError: no such file, no table, a column that is missing, no vote in it at all.
    """
    if path.is_file() and suffix_of(path.name) not in _SUFFIXES:
        raise DataError(f"{path.name} is not a table. Provide votes as CSV with the columns {', '.join(COLUMNS)}.")
    table = Table()
    try:
        _read_rows(path, table)
    except DataError as error:
        raise DataError(str(error).replace("one conversation per row", "one vote per row")) from None
    if not table.games:
        first = f" {table.reasons[0][0].upper()}{table.reasons[0][1:]}" if table.reasons else ""
        raise DataError(f"{path.name} contains no readable votes.{first}")
    return table


def _read_rows(path: Path, table: Table) -> None:
    names: tuple[str, ...] = ()
    for number, row in enumerate(_opened(path).rows(), start=1):
        if isinstance(row, Unreadable):
            table.refuse(f"{row.reason}.")
            continue
        names = names or _find_columns(path.name, row)
        _take(table, f"row {number:,}", [_text(row.get(name)) for name in names])


def _opened(path: Path) -> Source:
    """The file; where it is not sure in which old encoding, in Windows': names need only be told apart."""
    try:
        return open_source(path)
    except EncodingUnsure:
        return open_source(path, "windows-1252")


def _find_columns(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    """The names of the three columns as the file spells them. Raises DataError where one is missing."""
    spelt = {str(column).strip().lower(): str(column) for column in row}
    missing = [column for column in COLUMNS if column not in spelt]
    if missing:
        raise DataError(
            f"{name} has no column {missing[0]!r}; votes need {', '.join(COLUMNS)}. "
            f"It has {', '.join(list(spelt)[:6])[:200]}."
        )
    return tuple(spelt[column] for column in COLUMNS)


def _text(cell: Any) -> str:
    return "" if cell is None else " ".join(str(cell).split())


def _take(table: Table, where: str, cells: list[str]) -> None:
    """Add one row's game, or the reason why it is none."""
    model_a, model_b, winner = _name(cells[0]), _name(cells[1]), cells[2].lower()
    fault = _fault(model_a, model_b, winner)
    if fault:
        table.refuse(f"{where}: {fault}.")
    else:
        table.games.append(Game(model_a, model_b, _WINNERS[winner]))


def _name(cell: str) -> str:
    """A model's name, without the quote that `write_table` puts before what looks like a formula."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA) else cell


def _fault(model_a: str, model_b: str, winner: str) -> str:
    """Why a row is no vote; empty where it is one."""
    for column, model in (("model_a", model_a), ("model_b", model_b)):
        if not model:
            return f"{column} is empty"
        if len(model) > LONGEST_NAME:
            return f"{column} has {len(model):,} characters; {LONGEST_NAME} are allowed"
    if winner not in _WINNERS:
        found = repr(winner[:40]) if winner else "empty"
        return f"the winner is {found}; it should be model_a, model_b or tie"
    return f"{model_a[:60]!r} is on both sides" if model_a == model_b else ""


def write_table(votes: Iterable[Vote]) -> str:
    """The votes as CSV text, a row each; names are the models' keys, so that they can be read back."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for vote in votes:
        writer.writerow([_harmless(vote.left.voice), _harmless(vote.right.voice), _WRITTEN[vote.winner]])
    return out.getvalue()


def _harmless(name: str) -> str:
    """A name on one line that no spreadsheet takes for a formula."""
    name = " ".join(name.split())
    return f"'{name}" if name.startswith(_FORMULA) else name


def as_votes(games: Sequence[Game], file: Path, known: Iterable[Vote]) -> list[Vote]:
    """Imported games as votes to keep. Raises DataError where the same file was imported before."""
    mark = f"import:{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
    counts = Counter(vote.judge for vote in known)
    if counts[mark]:
        raise DataError(f"{file.name} was imported before: its {counts[mark]:,} votes are already counted.")
    chosen = {"model_a": "left", "model_b": "right", "tie": "tie", "both_bad": "both_bad"}
    return [
        Vote(
            left=Side(game.model_a, game.model_a),
            right=Side(game.model_b, game.model_b),
            winner=chosen[game.winner],  # type: ignore[arg-type]
            judge=mark,
            source=file.name,
        )
        for game in games
    ]
