"""How long conversations are: percentiles, a histogram to draw, and which length limit would cut what."""

import math
from typing import Any

import numpy as np

BINS = 40
STEP = 8
SHARE_TO_CUT = 0.01
LIMITS = (16, 131_072)


def percentile(lengths: Any, share: float) -> int:
    """The length that `share` of all conversations do not exceed; `lengths` are sorted. 0 where there are none."""
    return int(lengths[min(len(lengths) - 1, int(len(lengths) * share))]) if len(lengths) else 0


def histogram(lengths: Any, max_length: int) -> dict[str, list[int]]:
    """`edges` and `counts` (one fewer) over sorted `lengths`, in at most 40 bins of a round width.

    Where a few conversations are far longer than the rest, the last bin holds them too.
    """
    if not len(lengths):
        return {"edges": [], "counts": []}
    longest = int(lengths[-1])
    usual = max(percentile(lengths, 0.99) * 3 // 2, min(max_length, longest))
    end = usual if longest > 2 * usual else longest
    width = _round_up(end + 1, BINS)
    edges = list(range(0, end + width + 1, width))
    if edges[-2] > end:
        edges.pop()
    counts, _ = np.histogram(np.minimum(lengths, edges[-1] - 1), bins=edges)
    return {"edges": edges, "counts": counts.tolist()}


def suggestions(lengths: Any, longest_possible: int | None = None, where: str = "") -> list[dict[str, Any]]:
    """The smallest limit that cuts nothing, and the smallest that cuts under 1 %, of sorted `lengths`.

    Rounded up to multiples of 8. What the model cannot take (`longest_possible` tokens) is not suggested. `where` says
    of what these are the lengths, if not of all rows.
    """
    if not len(lengths):
        return []
    most = min(LIMITS[1], longest_possible or LIMITS[1])
    spared = max(0, math.ceil(len(lengths) * SHARE_TO_CUT) - 1)
    few = _limit(int(lengths[len(lengths) - 1 - spared]))
    found = [_suggestion(lengths, _limit(int(lengths[-1])), where), _suggestion(lengths, few, where)]
    kept = [each for each in found if each["max_length"] <= most]
    if not kept:
        return [_suggestion(lengths, most, where)]
    return kept[:1] if kept[0]["max_length"] == kept[-1]["max_length"] else kept


def advice(suggested: list[dict[str, Any]]) -> str:
    """The suggestions as one sentence."""
    ways = [f"{each['max_length']:,} ({each['because']})" for each in suggested]
    return f"Set data.max_length to {' or '.join(ways)}." if ways else "Raise data.max_length."


def _suggestion(lengths: Any, limit: int, where: str) -> dict[str, Any]:
    cuts = int(len(lengths) - np.searchsorted(lengths, limit, side="right"))
    share = cuts / len(lengths)
    if cuts == 0:
        because = f"the smallest that truncates nothing{where}"
    elif share < SHARE_TO_CUT:
        because = f"the smallest that truncates under 1 %: {cuts:,} of {len(lengths):,} rows{where}"
    else:
        because = f"the most this model supports; it truncates {cuts:,} of {len(lengths):,} rows{where}"
    return {"max_length": limit, "cuts": cuts, "share": share, "because": because}


def _limit(length: int) -> int:
    return max(LIMITS[0], -(-length // STEP) * STEP)


def _round_up(size: int, bins: int) -> int:
    """The smallest round width, 1, 2 or 5 times a power of ten, with which `bins` bins cover `size`."""
    wanted = size / bins
    power = 10 ** max(0, math.floor(math.log10(max(wanted, 1))))
    return next(int(step * power) for step in (1, 2, 5, 10) if step * power >= wanted)
