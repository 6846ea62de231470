"""Figures of a large dataset from a seeded sample of its rows, with the intervals that hold the true ones."""

import math
import random
from typing import Any

import numpy as np

SAMPLE_ROWS = 50_000
_Z = 1.959964  # 95 % of a normal distribution lies within so many standard deviations


def choose(count: int, seed: int, size: int = SAMPLE_ROWS) -> list[int]:
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
