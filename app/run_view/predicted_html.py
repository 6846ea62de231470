"""Predicted against used memory, as HTML: of one run in a line, of all runs in a table with the median error."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from app.ui.html import empty, text
from core.errors import NibbleError
from core.runs.store import Run
from core.sizes import GIB, MIB

SHOWN = 200


@dataclass(frozen=True)
class PredictedMeasured:
    """A run's peak memory in bytes: of the whole process where both are known."""

    predicted: int
    used: int

    @property
    def off(self) -> float:
        """What was used over what was predicted, as a share of that: +0.009 is 0.9 % more."""
        return self.used / self.predicted - 1


def pair(result: dict[str, Any]) -> PredictedMeasured | None:
    """What a run's result says of its memory; None where it was not predicted or not measured."""
    predicted = (result.get("predicted_peak_bytes") or {}).get("process")
    used = (result.get("peak_bytes") or {}).get("process")
    return PredictedMeasured(int(predicted), int(used)) if predicted and used else None


def in_words(found: PredictedMeasured) -> str:
    """'predicted 5.31, used 5.36 GiB (+0.9 %)'."""
    unit, name, digits = _unit(max(found.predicted, found.used))
    return (
        f"predicted {found.predicted / unit:.{digits}f}, used {found.used / unit:.{digits}f} {name} ({_off(found.off)})"
    )


def record(runs: list[Run]) -> str:
    """All runs that were predicted and measured, as they are given: newest first."""
    pairs = [(run, found) for run in runs if (found := pair(run.result())) is not None]
    if not pairs:
        return empty("No run measured yet", "Predicted and used memory of each run are listed here.")
    error = median(abs(found.off) for _, found in pairs)
    over = "one run" if len(pairs) == 1 else f"{len(pairs):,} runs"
    rows = "".join(_row(run, found) for run, found in pairs[:SHOWN])
    more = f"<p class='nb-muted'>… and {len(pairs) - SHOWN:,} older.</p>" if len(pairs) > SHOWN else ""
    headings = "".join(f"<th{side}>{name}</th>" for name, side in _HEADINGS)
    return (
        f'<p class="nb-muted">Median error over {over}: <b>{error * 100:.1f} %</b>. Peak memory of each run.</p>'
        f'<div class="nb-scroll"><table class="nb-table nb-record"><thead><tr>{headings}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{more}"
    )


_RIGHT = ' class="nb-num"'
_HEADINGS = (("Run", ""), ("Base model", ""), ("Predicted", _RIGHT), ("Used", _RIGHT), ("Error", _RIGHT))


def _row(run: Run, found: PredictedMeasured) -> str:
    unit, name, digits = _unit(max(found.predicted, found.used))
    sizes = "".join(
        f'<td class="nb-num">{each / unit:.{digits}f} {name}</td>' for each in (found.predicted, found.used)
    )
    return (
        f"<tr><td>{text(run.name)}</td><td>{text(_model(run))}</td>{sizes}"
        f'<td class="nb-num"><b>{_off(found.off)}</b></td></tr>'
    )


def _model(run: Run) -> str:
    try:
        return Path(run.recipe().model).name
    except NibbleError:
        return "?"


def _unit(largest: int) -> tuple[int, str, int]:
    return (GIB, "GiB", 2) if largest >= GIB else (MIB, "MiB", 0)


def _off(share: float) -> str:
    return f"{share * 100:+.1f} %"
