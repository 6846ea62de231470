"""From counted rows to the report's figures: exact ones, and those of a sample with their intervals."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from core.data.check.lengths import histogram, percentile, suggestions
from core.data.check.padding import likely_micro_batch, padding_shares
from core.data.check.report import Figures
from core.data.check.sample import percentile_interval, total_interval
from core.data.check.tally import TokenTally
from core.data.check.training import Training
from core.data.named_splits import Ranges
from core.data.split import split_rows
from core.settings import DataSettings


@dataclass(frozen=True)
class Parted:
    """How the rows are split: `train` and `held` are indices into the training units, `keys` are those units'."""

    keys: Any
    train: list[int]
    held: list[int]


def part(
    rows: Any, conversation_rows: Any, conversation_keys: Any, named: Ranges, settings: DataSettings, seed: int
) -> Parted:
    """The split of training units that stand in `rows`; a conversation's key is its units'. `named`: held-out rows."""
    keys = conversation_keys[np.searchsorted(conversation_rows, rows)]
    return Parted(keys, *split_rows(keys, named.holds(rows), settings, seed))


def exact_figures(tally: TokenTally, parted: Parted, settings: DataSettings, training: Training) -> Figures:
    """The figures where every row was counted."""
    total = int(tally.lengths.sum())
    return Figures(
        truncated=int((tally.full_lengths > tally.lengths).sum()),
        total=total,
        trained=int(tally.trained.sum()),
        exact=True,
        sample=None,
        interval=None,
        **_lengths(tally, settings, training, ""),
        **_epoch(parted, total / max(1, len(parted.keys)), training),
    )


def sampled_figures(
    tally: TokenTally, sampled_rows: Any, count: int, parted: Parted, settings: DataSettings, training: Training
) -> Figures:
    """Figures of `count` conversations from the counted `sampled_rows`; a dropped one counts as no tokens."""
    where = np.searchsorted(sampled_rows, tally.rows)

    def by_row(values: Any) -> Any:
        return np.bincount(where, weights=values, minlength=len(sampled_rows))

    total, of_total = total_interval(by_row(tally.lengths), count)
    trained, of_trained = total_interval(by_row(tally.trained), count)
    truncated, _ = total_interval(by_row(tally.full_lengths > tally.lengths), count)
    of_p95 = percentile_interval(np.sort(tally.full_lengths), 0.95)
    return Figures(
        truncated=truncated,
        total=total,
        trained=trained,
        exact=False,
        sample=len(sampled_rows),
        interval={"total": of_total, "trained": of_trained, "p95": of_p95},
        **_lengths(tally, settings, training, " of the sample"),
        **_epoch(parted, total / max(1, len(parted.keys)), training),
    )


def _lengths(tally: TokenTally, settings: DataSettings, training: Training, where: str) -> dict[str, Any]:
    full = np.sort(tally.full_lengths)
    mean = float(tally.lengths.mean()) if len(full) else 0.0
    micro_batch = training.micro_batch or likely_micro_batch(mean, training.effective_batch, training.device_kind)
    return {
        "p50": percentile(full, 0.5),
        "p95": percentile(full, 0.95),
        "max": percentile(full, 1.0),
        "lengths": histogram(full, settings.max_length),
        "suggestions": suggestions(full, training.longest, where),
        "padding": padding_shares(tally.lengths.tolist(), training.effective_batch, micro_batch, training.seed),
    }


def _epoch(parted: Parted, mean_length: float, training: Training) -> dict[str, Any]:
    from core.data.batches import steps_for

    train, speed = len(parted.train), training.pace.tokens_per_second
    _, sizes = np.unique(parted.keys, return_counts=True)
    return {
        "steps_per_epoch": steps_for(train, training.effective_batch, 1.0) if train else 0,
        "seconds_per_epoch": round(train * mean_length / speed, 1) if speed else None,
        "seconds_basis": training.pace.basis,
        "split": {
            "train": train,
            "held_out": len(parted.held),
            "duplicates_kept_together": int(sizes[sizes > 1].sum()),
        },
    }
