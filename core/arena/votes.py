"""Votes, kept for good: one line of JSON each in `workspace/arena/votes.jsonl`, only ever appended to."""

import json
import os
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from core.arena.games import Game, Winner
from core.errors import NibbleError
from core.runs.tail import Tail
from core.workspace import Workspace

Choice = Literal["left", "right", "tie", "both_bad"]
CHOICES: tuple[Choice, ...] = ("left", "right", "tie", "both_bad")
_WINNERS: dict[str, Winner] = {"left": "model_a", "right": "model_b", "tie": "tie", "both_bad": "both_bad"}
PERSON = "person"
KINDS = ("person", "judge", "import")


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


class VoteBook:
    """The votes of one workspace. `refresh` reads what was appended, by whomever; adding is safe from any process."""

    def __init__(self, workspace: Workspace) -> None:
        self.path = workspace.arena / "votes.jsonl"
        self._tail = Tail(self.path)
        self._votes: list[Vote] = []
        self._damaged = 0
        self._lock = threading.Lock()

    @property
    def unreadable(self) -> int:
        """How many lines are no votes: damaged, or cut off by a crash. They stay in the file and count nowhere."""
        return self._damaged + self._tail.unreadable

    def refresh(self) -> list[Vote]:
        """All votes, the oldest first."""
        with self._lock:
            rows = self._tail.read()
            if self._tail.restarts:  # somebody replaced the file: all of it is read anew
                self._tail = Tail(self.path)
                rows = self._tail.read()
                self._votes, self._damaged = [], 0
            for row in rows:
                vote = _vote(row)
                if vote is None:
                    self._damaged += 1
                else:
                    self._votes.append(vote)
            return list(self._votes)

    def add(self, votes: Sequence[Vote]) -> None:
        """Append votes, each with its time and an id. Raises NibbleError where they cannot be written."""
        now = time.time()
        rows = [{**asdict(vote), "time": vote.time or now, "id": vote.id or secrets.token_hex(6)} for vote in votes]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        try:
            append(self.path, text.encode("utf-8", "replace"))
        except OSError as error:
            raise NibbleError(f"Could not save the vote to {self.path}: {error.strerror or error}.") from None


def append(path: os.PathLike[str], lines: bytes) -> None:
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
    """What to call each voice: as it was called last; where two are called the same, the voice's key is added."""
    labels = {side.voice: side.label for vote in votes for side in (vote.left, vote.right)}
    called = list(labels.values())
    return {voice: f"{label} ({voice})" if called.count(label) > 1 else label for voice, label in labels.items()}
