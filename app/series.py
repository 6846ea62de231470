"""What a run's files say, read as they grow and kept small: at most LIMIT points a curve, whatever the length."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from core.runs.store import Run, Tail

LIMIT = 1000
SMOOTHING = 0.9
MEMORY_COLUMNS = ("allocated_bytes", "reserved_bytes", "process_bytes", "device_bytes")


@dataclass
class Series:
    """A curve of at most LIMIT points. When it is full, neighbours become one: their `merge` at the later x.

    Adding costs the same at the first point and at the millionth.
    """

    merge: Callable[[Sequence[float]], float] = fmean
    stride: int = 1
    points: list[tuple[float, float]] = field(default_factory=list)
    _waiting: list[tuple[float, float]] = field(default_factory=list)

    def add(self, x: float, y: float) -> None:
        """Append the point (x, y); x never falls."""
        self._waiting.append((x, y))
        if len(self._waiting) < self.stride:
            return
        self.points.append(self._merged(self._waiting))
        self._waiting = []
        if len(self.points) >= LIMIT:
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [self._merged([first, second]) for first, second in pairs]
            self.stride *= 2

    def _merged(self, points: list[tuple[float, float]]) -> tuple[float, float]:
        return points[-1][0], self.merge([y for _, y in points])

    def all(self) -> list[tuple[float, float]]:
        """The points so far, the newest included."""
        return self.points + self._waiting[-1:]


@dataclass
class Curves:
    """Everything drawn of one run. `update()` reads what is new; `versions` says what changed."""

    run: Run
    loss: Series = field(default_factory=Series)
    smooth: Series = field(default_factory=Series)
    evaluation: Series = field(default_factory=Series)
    memory: dict[str, Series] = field(default_factory=dict)
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=500))
    samples: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, float] = field(default_factory=dict)
    pace: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=20))
    versions: dict[str, int] = field(default_factory=lambda: {"metrics": 0, "memory": 0, "events": 0, "samples": 0})
    _tails: dict[str, Tail] = field(default_factory=dict)
    _average: float | None = None

    def update(self) -> None:
        """Read what was appended since the last call. A resume cuts the files back: then all is read again."""
        fresh = self._read()
        if self._went_back(fresh["metrics"]):
            self._forget()
            fresh = self._read()
        for name, rows in fresh.items():
            if rows:
                self.versions[name] += 1
        for row in fresh["metrics"]:
            self._add_metrics(row)
        for row in fresh["memory"]:
            self._add_memory(row)
        self.events.extend(fresh["events"])
        self.samples.extend(fresh["samples"])

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        for name in self.versions:
            self._tails.setdefault(name, Tail(self.run.dir / f"{name}.jsonl"))
        return {name: self._tails[name].read() for name in self.versions}

    def _went_back(self, rows: list[dict[str, Any]]) -> bool:
        return bool(rows) and rows[0].get("step", 0) < self.last.get("step", 0)

    def _forget(self) -> None:
        blank = Curves(self.run)
        for name in ("loss", "smooth", "evaluation", "memory", "events", "samples", "last", "pace", "_tails"):
            setattr(self, name, getattr(blank, name))
        self._average = None

    def _add_metrics(self, row: dict[str, Any]) -> None:
        step = float(row.get("step", 0))
        if row.get("loss") is not None:  # a loss that is no number is none in the file, and a gap in the curve
            loss = float(row["loss"])
            self._average = loss if self._average is None else SMOOTHING * self._average + (1 - SMOOTHING) * loss
            self.loss.add(step, loss)
            self.smooth.add(step, self._average)
            self.pace.append((float(row["time"]), step))
        if row.get("eval_loss") is not None:
            self.evaluation.add(step, float(row["eval_loss"]))
        self.last.update({key: value for key, value in row.items() if isinstance(value, (int, float))})

    def _add_memory(self, row: dict[str, Any]) -> None:
        seconds = float(row.get("seconds", 0))
        for column in MEMORY_COLUMNS:
            if row.get(column) is not None:
                self.memory.setdefault(column, Series(merge=max)).add(seconds, float(row[column]))

    def seconds_per_step(self) -> float | None:
        """The pace of the last steps; None before there are two."""
        if len(self.pace) < 2:
            return None
        (first_time, first_step), (last_time, last_step) = self.pace[0], self.pace[-1]
        return (last_time - first_time) / (last_step - first_step) if last_step > first_step else None
