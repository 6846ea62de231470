"""The report on a dataset: what was read, what is dropped and why, what the linter says, the figures in tokens."""

from dataclasses import asdict, dataclass, field
from typing import Any

from core.data.conversation import Dropped, Finding


@dataclass(frozen=True)
class Figures:
    """What only tokens tell. Counts of tokens are after the cut; percentiles and the histogram before it.

    With `exact` false they come from `sample` rows, scaled to all; `interval` holds the true figures in 95 of 100
    such samples.
    """

    truncated: int
    total: int
    trained: int
    p50: int
    p95: int
    max: int
    exact: bool
    sample: int | None
    interval: dict[str, list[int]] | None
    lengths: dict[str, list[int]]
    suggestions: list[dict[str, Any]]
    padding: dict[str, float]
    steps_per_epoch: int
    seconds_per_epoch: float | None
    seconds_basis: str
    split: dict[str, int]


@dataclass(frozen=True)
class Report:
    """A dataset checked as far as `stage` says ('reading', 'tokens', 'done'); usable + len(dropped) == rows, always.

    `figures` are None until the first tokens are counted. `splits` are rows of the file for each use, where the data
    names its splits: train, held_out, left_alone.
    """

    name: str
    bytes: int
    files: list[dict[str, Any]]
    format: str
    evidence: str
    columns: list[str]
    alternatives: list[dict[str, str]]
    splits: dict[str, int] | None
    rows: int
    usable: int
    template: str
    max_length: int
    train_on: str
    stage: str
    progress: float
    dropped: list[Dropped] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    figures: Figures | None = None

    def as_json(self, dropped_listed: int | None = None) -> dict[str, Any]:
        """The report as `data check --json` prints it; of the dropped rows at most the first `dropped_listed`."""
        found = self.figures
        counts = ("total", "trained", "p50", "p95", "max", "exact", "sample", "interval")
        beside = ("lengths", "suggestions", "padding", "steps_per_epoch", "seconds_per_epoch", "seconds_basis", "split")
        return {
            "format": self.format,
            "rows": self.rows,
            "usable": self.usable,
            "dropped": [{"row": each.row, "reason": each.reason} for each in self.dropped[:dropped_listed]],
            "truncated": found.truncated if found else None,
            "tokens": {name: getattr(found, name) for name in counts} if found else None,
            "warnings": [asdict(finding) for finding in self.findings],
            "name": self.name,
            "bytes": self.bytes,
            "files": self.files,
            "evidence": self.evidence,
            "columns": self.columns,
            "alternatives": self.alternatives,
            "splits": self.splits,
            "template": self.template,
            "max_length": self.max_length,
            "train_on": self.train_on,
            **{name: getattr(found, name) if found else None for name in beside},
            "suggestions": found.suggestions if found else [],
            "stage": self.stage,
            "progress": self.progress,
        }
