"""How long the conversations are: a histogram as inline SVG, with the length limit drawn on it."""

from collections.abc import Sequence

from app.ui.charts import BOTTOM, HEIGHT, RIGHT, TOP, Axes, grid, x_at, y_at
from app.ui.html import number, text

WIDE = 640
HEADROOM = 1.12
FAR_LIMIT = 1.6


def lengths_chart(edges: Sequence[float], counts: Sequence[int], limit: int, longest: int) -> str:
    """Bars of `counts` between `edges` (tokens; one more than counts); what is beyond `limit` is marked as cut.

    `longest` is the longest conversation: a bar that the limit goes through above it is not cut. Empty text where
    there is nothing to draw.
    """
    if not counts or max(counts) <= 0:
        return ""
    start, end = float(edges[0]), max(float(edges[-1]), float(edges[0]) + 1)
    far = limit > start + (end - start) * FAR_LIMIT
    shown, heights = (start, end if far else max(end, limit * 1.04)), (0.0, max(counts) * HEADROOM)
    axes = Axes("length (tokens)", "conversations", shown, heights, y_kind="count", width=WIDE)
    cut_from = limit if longest > limit else float("inf")
    bars = "".join(
        _bar(axes, low, high, count, cut_from) for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    )
    message = f"{number(sum(counts))} conversations by length in tokens; the limit is {number(limit)} tokens"
    keys = _key("fits", "fits") + (_key("cut", "cut at the limit") if longest > limit else "")
    keys += f'<span class="nb-key nb-c-budget"><i></i>limit {number(limit)}</span>'
    return (
        f'<figure class="nb-lengths"><figcaption class="nb-keys">{keys}</figcaption>'
        f'<svg viewBox="0 0 {WIDE} {HEIGHT}" role="img" aria-label="{text(message)}">'
        f"{grid(axes)}{bars}{_limit(axes, limit, far)}</svg></figure>"
    )


def _key(style: str, label: str) -> str:
    return f'<span class="nb-key nb-b-{style}"><i></i>{text(label)}</span>'


def _bar(axes: Axes, low: float, high: float, count: int, cut_from: float) -> str:
    """One bar; a bar that the limit goes through is cut where it does."""
    if not count:
        return ""
    parts = [(low, min(high, cut_from), "fits")] if low < cut_from else []
    parts += [(max(low, cut_from), high, "cut")] if high > cut_from else []
    message = f"{number(count)} conversations of {number(low)} to {number(high)} tokens"
    bottom = HEIGHT - BOTTOM
    top = min(y_at(count, axes), bottom - 1.5)  # a single one must be seen too
    drawn = "".join(
        f'<rect class="nb-b-{style}" x="{x_at(a, axes):.1f}" y="{top:.1f}" '
        f'width="{max(x_at(b, axes) - x_at(a, axes) - 1, 0.8):.1f}" height="{bottom - top:.1f}"/>'
        for a, b, style in parts
    )
    return f'<g data-said="{text(message)}">{drawn}</g>'


def _limit(axes: Axes, limit: int, far: bool) -> str:
    """The limit as a line; one far beyond the longest is only named, at the right edge."""
    if far:
        return (
            f'<text class="nb-axis" x="{WIDE - RIGHT - 4}" y="{TOP + 12}" text-anchor="end">'
            f"limit of {number(limit)} tokens is off the scale →</text>"
        )
    x = x_at(limit, axes)
    return f'<line class="nb-line nb-c-budget" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
