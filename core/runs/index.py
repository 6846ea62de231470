"""What lists show of each run, read again only where a folder has changed: fast for ten thousand runs.

A run's files are replaced, not written over, so the folder's modification time shows every change except appending to
a file. Runs that have not ended are always read. Once there are many rows they are also kept in `state/runs.json`: from
there ten thousand take a quarter of a second, from their folders six times as long. A file of an ended run that is
edited in place is not noticed until the run is opened.
"""

import hashlib
import json
import math
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from core.runs.store import OPEN, Run
from core.workspace import Workspace, read_json

# A folder that changed so shortly before it was read may have changed again within the same tick of its clock.
SETTLED_NANOSECONDS = 2_000_000_000
WORTH_KEEPING = 200
TAIL_BYTES = 16_384


@dataclass(frozen=True)
class Row:
    """One run in a list. Losses in nats per token; None for what is missing.

    `measured_on` is equal for runs whose evaluations can be compared: the same base on the same held-out rows.
    `stamp` and `settled` are the index's own: the folder's time when it was read, and whether that can be trusted.
    """

    run_id: str
    stamp: int
    settled: bool
    state: str
    step: int
    total: int
    message: str
    name: str
    note: str
    tags: tuple[str, ...]
    model: str
    data: str
    rank: str
    measured_on: str
    loss: float | None
    before: float | None
    after: float | None
    best: float | None
    seconds: float | None
    tokens_per_second: float | None
    peak_bytes: int | None
    predicted_bytes: int | None
    has_adapter: bool

    @property
    def lowest(self) -> float | None:
        """The lowest evaluation loss of what the run keeps: of its adapter, or of the best one beside it."""
        found = [value for value in (self.after, self.best) if value is not None]
        return min(found, default=None)


class Index:
    """The rows of one workspace's runs. Thread-safe."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._rows: dict[str, Row] | None = None
        self._sorted: list[Row] = []
        self._looked = -math.inf
        self._unkept = 0
        self._lock = threading.Lock()

    def rows(self, within_seconds: float = 0.0) -> list[Row]:
        """All runs, newest first, as they were at most `within_seconds` ago."""
        with self._lock:
            if time.monotonic() - self._looked >= within_seconds:
                self._refresh()
                self._looked = time.monotonic()
            return self._sorted

    def _refresh(self) -> None:
        known = _kept(self._file) if self._rows is None else self._rows
        rows: dict[str, Row] = {}
        runs = self.workspace.runs
        for name, stamp in _folders(runs):
            row = known.get(name)
            if row is None or row.stamp != stamp or not row.settled or row.state in OPEN:
                row = _read(Run(runs / name), stamp)
                self._unkept += int(row is not None and row.settled and row.state not in OPEN)
            if row is not None:
                rows[name] = row
        self._rows = rows
        self._sorted = [rows[name] for name in sorted(rows, reverse=True)]
        if self._unkept >= WORTH_KEEPING:
            self._keep()

    def look_again(self, run_id: str) -> None:
        """Read this run again at the next call, whatever its folder's time says."""
        with self._lock:
            if self._rows is not None:
                self._rows.pop(run_id, None)
            self._looked = -math.inf

    @property
    def _file(self) -> Path:
        return self.workspace.state / "runs.json"

    def _keep(self) -> None:
        """Keep the rows for the next start. They can be read again, so nothing is flushed."""
        self._unkept = 0
        beside = self._file.with_name(f".runs.{os.getpid()}.partial")
        text = json.dumps({"columns": _COLUMNS, "rows": [list(vars(row).values()) for row in self._sorted]})
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(self._file)
        except OSError:  # a full disk, or another server's at the same time: the next start reads the folders
            beside.unlink(missing_ok=True)


@lru_cache(maxsize=8)
def index_of(workspace: Workspace) -> Index:
    """The one index of `workspace` in this process."""
    return Index(workspace)


def best_of(rows: list[Row]) -> set[str]:
    """The IDs of the runs with the lowest evaluation loss among those measured on the same rows."""
    lowest: dict[str, tuple[float, str]] = {}
    counts: dict[str, int] = {}
    for row in rows:
        if row.lowest is not None and row.measured_on:
            counts[row.measured_on] = counts.get(row.measured_on, 0) + 1
            here = (row.lowest, row.run_id)
            lowest[row.measured_on] = min(lowest.get(row.measured_on, here), here)
    return {run_id for group, (_, run_id) in lowest.items() if counts[group] > 1}


def _folders(runs: Path) -> Iterator[tuple[str, int]]:
    """Each run's folder by name, with the nanosecond at which an entry of it was last made, replaced or removed."""
    with os.scandir(runs) as found:
        for entry in found:
            if entry.name.startswith("."):
                continue
            try:
                yield entry.name, entry.stat().st_mtime_ns
            except FileNotFoundError:  # deleted meanwhile
                continue


def _read(run: Run, stamp: int) -> Row | None:
    """The row of `run`; None for a folder that is no run, or is gone."""
    settings = _settings(run)
    if settings is None:
        return None
    status, labels, result = run.status(), run.labels(), run.result()
    last = {} if result else _last_figures(run.dir / "metrics.jsonl")
    tags = labels.get("tags")
    return Row(
        run_id=run.id,
        stamp=stamp,
        settled=abs(time.time_ns() - stamp) > SETTLED_NANOSECONDS,
        state=status.state,
        step=status.step,
        total=status.total,
        message=status.message,
        name=str(labels.get("name") or run.id),
        note=str(labels.get("note") or ""),
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
        loss=_number(result.get("final_loss", last.get("loss"))),
        before=_number(result.get("eval_loss_before")),
        after=_number(result.get("eval_loss", last.get("eval_loss"))),
        best=_number(_object(result.get("best")).get("eval_loss")),
        seconds=_number(result.get("seconds")),
        tokens_per_second=_number(result.get("tokens_per_second", last.get("tokens_per_second"))),
        peak_bytes=_bytes(result.get("peak_bytes")),
        predicted_bytes=_bytes(result.get("predicted_peak_bytes")),
        has_adapter=run.has_adapter,
        **settings,
    )


def _settings(run: Run) -> dict[str, str] | None:
    """What the list shows of the recipe: None where there is no file, question marks where it is damaged."""
    try:
        sections = dict(_SECTION.findall((run.dir / "recipe.yaml").read_text(encoding="utf-8")))
        model, data = _value(sections["model"]), _PATH.search(sections["data"])
        held_out = _PATH.sub("", sections["data"])
        measured = [sections["model"], _SHA256.findall(sections["dataset"]), _SEED.findall(sections["train"]), held_out]
        return {
            "model": Path(model).name,
            "data": Path(_value(data[1] if data else "")).name,
            "rank": str(int(_RANK.findall(sections["lora"])[0])),
            "measured_on": hashlib.blake2b(repr(measured).encode(), digest_size=12).hexdigest(),
        }
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, LookupError, yaml.YAMLError):
        return {"model": "?", "data": "?", "rank": "?", "measured_on": ""}


# The YAML is our own and these few lines of it are all that is wanted: to parse the whole takes fifty times as long.
_SECTION = re.compile(r"(?m)^(\w+):(.*\n(?:[ -].*\n?)*)")
_PATH = re.compile(r"(?m)^  path:(.*\n(?:    .*\n)*)")
_SHA256 = re.compile(r"(?m)^  sha256: (.*)")
_SEED = re.compile(r"(?m)^  seed: (.*)")
_RANK = re.compile(r"(?m)^  rank: (.*)")


def _value(text: str) -> str:
    """What stands behind a key, as text. Raises yaml.YAMLError."""
    plain = text.strip()
    return plain if _PLAIN.fullmatch(plain) else str(yaml.safe_load(plain))


_PLAIN = re.compile(r"[A-Za-z_./][\w ./-]*")


def _last_figures(file: Path) -> dict[str, float]:
    """The newest `loss`, `eval_loss` and so on at the end of a metrics file, for a run that has no result yet."""
    try:
        with file.open("rb") as handle:
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - TAIL_BYTES))
            lines = handle.read().splitlines()
    except FileNotFoundError:
        return {}
    figures: dict[str, float] = {}
    for line in lines:
        try:
            row = _object(json.loads(line))
        except (ValueError, RecursionError):  # cut off, or damaged
            continue
        figures.update({key: value for key, value in row.items() if _number(value) is not None})
    return figures


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _bytes(peaks: Any) -> int | None:
    whole = _number(_object(peaks).get("process"))
    return None if whole is None else int(whole)


_COLUMNS = [field.name for field in fields(Row)]


def _kept(file: Path) -> dict[str, Row]:
    """The rows that an earlier process kept; none where they are missing, damaged, or of another version."""
    found = _object(read_json(file))
    if found.get("columns") != _COLUMNS:
        return {}
    try:
        rows = [dict(zip(_COLUMNS, values, strict=True)) for values in found["rows"]]
        return {row["run_id"]: Row(**{**row, "tags": tuple(row["tags"])}) for row in rows}
    except (KeyError, TypeError, ValueError):
        return {}
