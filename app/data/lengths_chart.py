"""How long the conversations are: a histogram as inline SVG, with the length limit drawn on it."""

from collections.abc import Sequence

from app.ui.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, ticks
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
    plot = _Plot(start, end if far else max(end, limit * 1.04), max(counts) * HEADROOM)
    cut_from = limit if longest > limit else float("inf")
    bars = "".join(
        plot.bar(low, high, count, cut_from) for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    )
    message = f"{number(sum(counts))} conversations by length in tokens; the limit is {number(limit)} tokens"
    keys = _key("fits", "fits") + (_key("cut", "cut at the limit") if longest > limit else "")
    keys += f'<span class="nb-key nb-c-budget"><i></i>limit {number(limit)}</span>'
    return (
        f'<figure class="nb-lengths"><figcaption class="nb-keys">{keys}</figcaption>'
        f'<svg viewBox="0 0 {WIDE} {HEIGHT}" role="img" aria-label="{text(message)}">'
        f"{plot.grid()}{bars}{plot.limit(limit, far)}</svg></figure>"
    )


def _key(style: str, label: str) -> str:
    return f'<span class="nb-key nb-b-{style}"><i></i>{text(label)}</span>'


class _Plot:
    """From tokens and conversations to places on the picture."""

    def __init__(self, start: float, end: float, top: float) -> None:
        self.start, self.end, self.top = start, end, top
        self.right, self.bottom = WIDE - RIGHT, HEIGHT - BOTTOM

    def x(self, tokens: float) -> float:
        return LEFT + (tokens - self.start) / (self.end - self.start) * (self.right - LEFT)

    def y(self, count: float) -> float:
        return self.bottom - count / self.top * (self.bottom - TOP)

    def bar(self, low: float, high: float, count: int, cut_from: float) -> str:
        """One bar; a bar that the limit goes through is cut where it does."""
        if not count:
            return ""
        parts = [(low, min(high, cut_from), "fits")] if low < cut_from else []
        parts += [(max(low, cut_from), high, "cut")] if high > cut_from else []
        message = f"{number(count)} conversations of {number(low)} to {number(high)} tokens"
        top = min(self.y(count), self.bottom - 1.5)  # a single one must be seen too
        drawn = "".join(
            f'<rect class="nb-b-{style}" x="{self.x(a):.1f}" y="{top:.1f}" '
            f'width="{max(self.x(b) - self.x(a) - 1, 0.8):.1f}" height="{self.bottom - top:.1f}"/>'
            for a, b, style in parts
        )
        return f'<g data-said="{text(message)}">{drawn}</g>'

    def grid(self) -> str:
        """The scales, each with its unit."""
        parts = []
        for count in ticks(0.0, self.top):
            if count != int(count):
                continue
            y = self.y(count)
            parts.append(f'<line class="nb-grid" x1="{LEFT}" x2="{self.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="nb-tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{count:,.0f}</text>')
        for tokens in ticks(self.start, self.end, about=8):
            x = self.x(tokens)
            parts.append(f'<line class="nb-mark" x1="{x:.1f}" x2="{x:.1f}" y1="{self.bottom}" y2="{self.bottom + 4}"/>')
            parts.append(
                f'<text class="nb-tick" x="{x:.1f}" y="{self.bottom + 17}" text-anchor="middle">{tokens:,.0f}</text>'
            )
        middle, centre = (TOP + self.bottom) / 2, (LEFT + self.right) / 2
        return "".join(parts) + (
            f'<text class="nb-axis" x="{centre}" y="{HEIGHT - 6}" text-anchor="middle">length (tokens)</text>'
            f'<text class="nb-axis" x="12" y="{middle}" text-anchor="middle" '
            f'transform="rotate(-90 12 {middle})">conversations</text>'
        )

    def limit(self, limit: int, far: bool) -> str:
        """The limit as a line; one far beyond the longest is only said, at the right edge."""
        if far:
            return (
                f'<text class="nb-axis" x="{self.right - 4}" y="{TOP + 12}" text-anchor="end">'
                f"limit of {number(limit)} tokens is off the scale →</text>"
            )
        x = self.x(limit)
        return f'<line class="nb-line nb-c-budget" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{self.bottom}"/>'
