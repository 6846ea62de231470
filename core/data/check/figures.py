"""From counted rows to the report's figures: exact ones, and those of a sample with their intervals."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.data.check.lengths import histogram, percentile, suggestions
from core.data.check.report import Figures
from core.data.check.tally import TokenTally
from core.data.check.training import Training
from core.data.named_splits import Ranges
from core.data.split import split_rows
from core.settings import DataSettings
from core.system.hardware import BUSY_TOKENS

SAMPLE_ROWS = 50_000
_Z = 1.959964  # 95 % of a normal distribution lies within so many standard deviations
# Of an epoch of more micro-batches than this, the padding is counted in its first ones; they are shuffled.
MOST_BATCHES = 1000


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


def choose(count: int, seed: int, size: int) -> list[int]:
    """`size` of the indices below `count`, drawn without replacement, in rising order; all where there are fewer."""
    return sorted(random.Random(seed).sample(range(count), min(size, count)))


def total_interval(values: Any, count: int) -> tuple[int, list[int]]:
    """The total over `count` rows, estimated from the sampled `values`, and its 95 % interval.

    The normal interval of a mean, with the correction for a sample that is a good part of the whole (Cochran,
    Sampling Techniques, chapter 2).
    """
    size = len(values)
    if size == 0:
        return 0, [0, 0]
    total = float(np.mean(values)) * count
    if size < 2:
        return round(total), [round(total), round(total)]
    spread = float(np.std(values, ddof=1)) / math.sqrt(size) * math.sqrt(max(0.0, 1 - size / count)) * count
    return round(total), [round(total - _Z * spread), round(total + _Z * spread)]


def percentile_interval(lengths: Any, share: float) -> list[int]:
    """The 95 % interval of a percentile: the sorted sample's values at the binomial ranks around it."""
    size = len(lengths)
    if size == 0:
        return [0, 0]
    spread = _Z * math.sqrt(size * share * (1 - share))
    low, high = math.floor(size * share - spread), math.ceil(size * share + spread)
    return [int(lengths[max(0, low)]), int(lengths[min(size - 1, high)])]


def padding_shares(lengths: Sequence[int], effective_batch: int, micro_batch: int, seed: int) -> dict[str, float]:
    """`packed` and `padded`: the share of positions that hold no token, for training units of these token lengths."""
    from core.data.batches import data_order, dealt, packed_size, parts_of, steps_for

    if not lengths:
        return {"packed": 0.0, "padded": 0.0}
    steps = min(steps_for(len(lengths), effective_batch, 1.0), -(-MOST_BATCHES * micro_batch // effective_batch))
    real = packed = padded = 0
    for step in data_order(len(lengths), steps, effective_batch, seed):
        for part in parts_of(dealt(step, lengths, micro_batch, packed=True), micro_batch):
            real += sum(lengths[row] for row in part)
            packed += packed_size(part, lengths)
        for part in parts_of(dealt(step, lengths, micro_batch, packed=False), micro_batch):
            padded += len(part) * max(lengths[row] for row in part)
    return {"packed": 1 - real / packed, "padded": 1 - real / padded}


def likely_micro_batch(mean_length: float, effective_batch: int, device_kind: str) -> int:
    """The micro-batch that the trainer takes where memory is no limit: as many as keep the device busy."""
    divisors = [size for size in range(1, effective_batch + 1) if effective_batch % size == 0]
    return max((size for size in divisors if size * mean_length <= BUSY_TOKENS[device_kind]), default=1)
