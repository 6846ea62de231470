"""Votes, kept for good: one line of JSON each in `workspace/arena/votes.jsonl`, only ever appended to."""

import json
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from core.arena.games import Game, Winner
from core.errors import NibbleError
from core.runs.tail import Tail
from core.workspace import Workspace

Choice = Literal["left", "right", "tie", "both_bad"]
CHOICES: tuple[Choice, ...] = ("left", "right", "tie", "both_bad")
_WINNERS: dict[str, Winner] = {"left": "model_a", "right": "model_b", "tie": "tie", "both_bad": "both_bad"}
PERSON = "person"
KINDS = ("person", "judge", "import")
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Side:
    """One of the two: `voice` is what it is counted by, `label` what a person calls it."""

    voice: str
    label: str
    text: str = ""
    tokens: int = 0


@dataclass(frozen=True)
class Vote:
    """One judgement: `left` and `right` as they were shown. `judge`: person, judge:<model>, or import:<file's hash>.

    `source` says where the question is from, `settings` how both answered, `time` is in seconds since the epoch.
    """

    left: Side
    right: Side
    winner: Choice
    judge: str = PERSON
    prompt: str = ""
    source: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    time: float = 0.0
    id: str = ""

    @property
    def kind(self) -> str:
        """Who judged: person, judge or import."""
        return self.judge.partition(":")[0]

    @property
    def game(self) -> Game:
        """The vote as it is counted."""
        return Game(self.left.voice, self.right.voice, _WINNERS[self.winner])


class Book(Generic[Entry]):
    """Entries in a file of JSON lines, to which any process may append. `parse` reads a line, None where it is none."""

    def __init__(self, path: Path, what: str, parse: Callable[[dict[str, Any]], Entry | None]) -> None:
        self.path, self._what, self._parse = path, what, parse
        self._tail = Tail(path)
        self._entries: list[Entry] = []
        self._damaged = 0
        self._lock = threading.Lock()

    @property
    def unreadable(self) -> int:
        """How many lines are no entries: damaged, or cut off by a crash. They stay in the file and count nowhere."""
        return self._damaged + self._tail.unreadable

    def refresh(self) -> list[Entry]:
        """All entries, the oldest first, with those that were appended since the last call."""
        with self._lock:
            rows = self._tail.read()
            if self._tail.restarts:  # somebody replaced the file: all of it is read anew
                self._tail = Tail(self.path)
                rows = self._tail.read()
                self._entries, self._damaged = [], 0
            read = [entry for row in rows if (entry := self._parse(row)) is not None]
            self._damaged += len(rows) - len(read)
            self._entries += read
            return list(self._entries)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows as lines. Raises NibbleError where they cannot be written."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        try:
            _append(self.path, text.encode("utf-8", "replace"))
        except OSError as error:
            raise NibbleError(f"Could not save the {self._what} to {self.path}: {error.strerror or error}.") from None


class VoteBook(Book[Vote]):
    """The votes of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace.arena / "votes.jsonl", "vote", _vote)

    def add(self, votes: Sequence[Vote]) -> None:
        """Append votes, each with its time and an id. Raises NibbleError where they cannot be written."""
        now = time.time()
        self.append({**asdict(vote), "time": vote.time or now, "id": vote.id or secrets.token_hex(6)} for vote in votes)


def _append(path: Path, lines: bytes) -> None:
    """Append whole lines in one write; a line that a crash cut off is ended first, so that it spoils no other."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
    try:
        size = os.lseek(handle, 0, os.SEEK_END)
        if size:
            os.lseek(handle, size - 1, os.SEEK_SET)
            lines = (b"" if os.read(handle, 1) == b"\n" else b"\n") + lines
        while lines:
            lines = lines[os.write(handle, lines) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _vote(row: dict[str, Any]) -> Vote | None:
    """The vote that a line holds; None where it is none."""
    try:
        left, right = (
            Side(str(side["voice"]), str(side["label"]), str(side.get("text", "")), int(side.get("tokens", 0)))
            for side in (row["left"], row["right"])
        )
        if row["winner"] not in CHOICES or left.voice == right.voice:
            return None
        settings = row.get("settings", {})
        return Vote(
            left=left,
            right=right,
            winner=row["winner"],
            judge=str(row.get("judge", PERSON)),
            prompt=str(row.get("prompt", "")),
            source=str(row.get("source", "")),
            settings=settings if isinstance(settings, dict) else {},
            seed=row.get("seed"),
            time=float(row.get("time", 0.0)),
            id=str(row.get("id", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def games_of(votes: Iterable[Vote], kinds: Sequence[str] = KINDS) -> list[Game]:
    """What is counted of the votes by people, by judges, and of imported files."""
    return [vote.game for vote in votes if vote.kind in kinds]


def labels_of(votes: Iterable[Vote]) -> dict[str, str]:
    """What to call each model: as it was called last; where two are called the same, the model's key is added."""
    labels = {side.voice: side.label for vote in votes for side in (vote.left, vote.right)}
    counts = Counter(labels.values())
    return {key: f"{label} ({key})" if counts[label] > 1 else label for key, label in labels.items()}
