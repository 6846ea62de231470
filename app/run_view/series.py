"""What a run's files say, read as they grow and kept small."""

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from app.ui.series import Series, highest, mean
from core.runs.store import Run
from core.runs.tail import Tail

SMOOTHING = 0.9
MEMORY_COLUMNS = ("allocated_bytes", "reserved_bytes", "process_bytes", "device_bytes")
# Reading at most so long in one go: a page on a long run opens at once, and fills within its next ticks.
PATIENCE_SECONDS = 0.5
CHUNK_BYTES = 2**20

Row = dict[str, Any]


@dataclass
class Metrics:
    """What metrics.jsonl has come to: curves by step, and the newest value of every number.

    `loss` keeps its peaks, `smooth` is the same smoothed; `seconds` and `tokens` say how much training each step ends.
    """

    loss: Series = field(default_factory=Series)
    smooth: Series = field(default_factory=lambda: Series(mean))
    evaluation: Series = field(default_factory=Series)
    seconds: Series = field(default_factory=Series)
    tokens: Series = field(default_factory=Series)
    last: dict[str, float] = field(default_factory=dict)
    pace: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=20))
    _sum: float = 0.0
    _weight: float = 0.0
    _seconds: float = 0.0
    _tokens: float = 0.0

    def add(self, rows: list[Row]) -> None:
        """Take up lines of the file in their order. A loss that is no number is none there, and a gap in the curve."""
        trained, steps, losses = _figures(rows, "step", "loss")
        measured, at, found = _figures(rows, "step", "eval_loss")
        self.loss.extend(steps, losses)
        self.smooth.extend(steps, self._smoothed(losses))
        self.evaluation.extend(at, found)
        self._count(trained, steps)
        _, times, timed = _figures(trained[-20:], "time", "step")
        self.pace.extend(zip(times, timed, strict=True))
        newest = [row for row in rows[-1:] if _is_number(row.get("step"))]
        for row in sorted([*measured, *trained[-1:], *newest], key=lambda row: float(row["step"])):
            self.last.update({key: value for key, value in row.items() if _is_number(value)})

    def _smoothed(self, losses: list[float]) -> list[float]:
        """The mean of all losses up to each, every one counting for less than the one after it."""
        smoothed = []
        for loss in losses:
            self._sum, self._weight = SMOOTHING * self._sum + loss, SMOOTHING * self._weight + 1
            smoothed.append(self._sum / self._weight)
        return smoothed

    def _count(self, trained: list[Row], steps: list[float]) -> None:
        seconds, tokens = [], []
        for row in trained:
            count, speed = row.get("tokens"), row.get("tokens_per_second")
            if count and speed:
                self._tokens += count
                self._seconds += count / speed
            seconds.append(self._seconds)
            tokens.append(self._tokens)
        self.seconds.extend(steps, seconds)
        self.tokens.extend(steps, tokens)


@dataclass
class Curves:
    """Everything drawn of one run. `update()` reads what is new; `versions` says what changed."""

    run: Run
    metrics: Metrics = field(default_factory=Metrics)
    memory: dict[str, Series] = field(default_factory=dict)
    events: deque[Row] = field(default_factory=lambda: deque(maxlen=500))
    samples: list[Row] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=lambda: {"metrics": 0, "memory": 0, "events": 0, "samples": 0})
    _tails: dict[str, Tail] = field(default_factory=dict)

    def update(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Read what was appended since the last call, for about `patience_seconds`: `waiting_bytes` is the rest.

        A resume cuts the files back: then such a file is read anew.
        """
        ends = time.monotonic() + patience_seconds
        for name in self.versions:
            tail = self._tails.setdefault(name, Tail(self.run.dir / f"{name}.jsonl"))
            while True:
                self._read(name, tail)
                if not tail.waiting_bytes or time.monotonic() > ends:
                    break

    @property
    def waiting_bytes(self) -> int:
        """How much of the files has not been read yet."""
        return sum(tail.waiting_bytes for tail in self._tails.values())

    @property
    def share_read(self) -> float:
        """How much of the files has been read, from 0 to 1."""
        read = sum(tail.position for tail in self._tails.values())
        return read / (read + self.waiting_bytes) if read else 1.0

    def _read(self, name: str, tail: Tail) -> None:
        before = tail.restarts
        rows = tail.read(CHUNK_BYTES)
        if tail.restarts != before or (name == "metrics" and self._went_back(rows)):
            self._forget(name)
        if not rows and tail.restarts == before:
            return
        self.versions[name] += 1
        if name == "metrics":
            self.metrics.add(rows)
        elif name == "memory":
            self._add_memory(rows)
        elif name == "events":
            self.events.extend(rows)
        else:
            self.samples.extend(rows)

    def _went_back(self, rows: list[Row]) -> bool:
        return bool(rows) and _is_number(rows[0].get("step")) and rows[0]["step"] < self.metrics.last.get("step", 0)

    def _forget(self, name: str) -> None:
        setattr(self, name, getattr(Curves(self.run), name))

    def _add_memory(self, rows: list[Row]) -> None:
        for column in MEMORY_COLUMNS:
            _, seconds, sizes = _figures(rows, "seconds", column)
            if sizes:
                self.memory.setdefault(column, Series(highest)).extend(seconds, sizes)

    def seconds_per_step(self) -> float | None:
        """The pace of the last steps; None before there are two."""
        pace = self.metrics.pace
        if len(pace) < 2:
            return None
        (first_time, first_step), (last_time, last_step) = pace[0], pace[-1]
        return (last_time - first_time) / (last_step - first_step) if last_step > first_step else None


def _figures(rows: list[Row], x: str, y: str) -> tuple[list[Row], list[float], list[float]]:
    """Those of `rows` in which both are numbers, and the numbers. A value that is missing or damaged is left out."""
    rows = [row for row in rows if row.get(y) is not None]
    try:
        xs, ys = [float(row[x]) for row in rows], [float(row[y]) for row in rows]
        if all(map(math.isfinite, xs)) and all(map(math.isfinite, ys)):
            return rows, xs, ys
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    rows = [row for row in rows if _is_number(row.get(x)) and _is_number(row[y])]
    return rows, [float(row[x]) for row in rows], [float(row[y]) for row in rows]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
