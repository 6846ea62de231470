"""Line charts as inline SVG: small, sharp, the same in light and dark, with a unit on every axis.

Colours are CSS variables (static/nibble.css), so that a chart follows the page's light or dark by itself.
static/nibble.js shows the values under the pointer; it reads them from the curves as they are drawn.

While a run goes on its axes end at round numbers: the picture stands still while the curve grows into it, and only
what is new must be drawn (`Ink`), so that the millionth point costs what the hundredth did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.ui.html import duration, text
from app.ui.series import Point, Series

WIDTH, HEIGHT = 480, 264
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 42
_ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Line:
    """One curve. `style` is a CSS class: raw, smooth, eval (points), used, reserved, allocated, predicted, budget.

    `settled` points are not drawn again while they are of the same `generation`; the `unsettled` follow them.
    """

    name: str
    style: str
    settled: Sequence[Point]
    unsettled: Sequence[Point] = ()
    generation: int = 0

    @classmethod
    def of(cls, name: str, style: str, series: Series) -> Line:
        """The line of a series."""
        return cls(name, style, series.points, series.unsettled(), series.generation)


@dataclass(frozen=True)
class Axes:
    """What the axes say, and the range that they cover. Values are shown divided by `y_unit`."""

    x_title: str
    y_title: str
    x_range: Point
    y_range: Point
    x_kind: str = "number"
    y_kind: str = "number"
    y_unit: float = 1.0
    width: int = WIDTH
    height: int = HEIGHT


@dataclass
class Ink:
    """The paths of one chart as far as they are settled: of each line, what it was drawn in, how far, and the path."""

    drawn: dict[str, tuple[tuple[int, Axes], int, str]] = field(default_factory=dict)

    def path(self, line: Line, axes: Axes) -> str:
        """The SVG path of `line`; only its new points are drawn where the axes are as they were."""
        frame = (line.generation, axes)
        before, count, drawn = self.drawn.get(line.name, (None, 0, ""))
        if before != frame:
            count, drawn = 0, ""
        drawn += _points(line.settled[count:], axes)
        self.drawn[line.name] = (frame, len(line.settled), drawn)
        return f"M{(drawn + _points(line.unsettled, axes))[1:]}"


def path(points: Sequence[Point], axes: Axes) -> str:
    """The SVG path through `points`, at least one, in one go."""
    return f"M{_points(points, axes)[1:]}"


def _points(points: Sequence[Point], axes: Axes) -> str:
    return "".join([f"L{x_at(x, axes):.1f} {y_at(y, axes):.1f}" for x, y in points])


def tick_step(span: float, about: int = 5) -> float:
    """A round number that goes into `span` some `about` times."""
    rough = span / about
    scale = 10 ** math.floor(math.log10(rough))
    return next(factor * scale for factor in (1, 2, 2.5, 5, 10) if factor * scale >= rough * 0.999)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high], some `about` of them."""
    span = high - low
    if span <= 0:
        return [low]
    step = tick_step(span, about)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def time_step(end: float, about: int = 6) -> float:
    """A round time that goes into `end` seconds some `about` times at most."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
    return next((step for step in steps if end / step <= about), 86400 * math.ceil(end / 86400 / about))


def time_ticks(end: float, about: int = 6) -> list[float]:
    """Round times within [0, end] seconds."""
    step = int(time_step(end, about))
    return [float(value) for value in range(0, int(end) + 1, step)]


def round_up(value: float) -> float:
    """The next round number at or above a positive `value`, at most a third above it."""
    scale = 10 ** math.floor(math.log10(value))
    return next(factor * scale for factor in _ROUND if factor * scale >= value * (1 - 1e-9))


def round_up_time(seconds: float) -> float:
    """The next round time at or above `seconds`."""
    step = time_step(seconds)
    return math.ceil(seconds / step) * step


def padded(low: float, high: float) -> Point:
    """An axis' range for values from `low` to `high`: round ends with some room, which a new value seldom moves."""
    room = max((high - low) * 0.06, abs(high) * 0.02, 1e-6)
    step = tick_step(high - low + 2 * room, about=8)
    bottom = 0.0 if 0 <= low < 0.35 * high else math.floor((low - room) / step) * step
    return bottom, math.ceil((high + room) / step) * step


def figure(title: str, lines: Sequence[Line], axes: Axes, ink: Ink | None, remark: str = "") -> str:
    """A chart with its title and a key for each of `lines` that has points."""
    drawn = [line for line in lines if line.settled or line.unsettled]
    keys = "".join(f'<span class="nb-key nb-c-{line.style}"><i></i>{text(line.name)}</span>' for line in drawn)
    return (
        f'<figure class="nb-chart"><figcaption><b>{text(title)}</b><span class="nb-keys">{keys}</span></figcaption>'
        f"{svg(title, axes, [_curve(line, axes, ink or Ink()) for line in drawn], remark)}</figure>"
    )


def svg(title: str, axes: Axes, curves: Sequence[str], remark: str = "") -> str:
    """The picture: axes with their units, and `curves` as drawn within them."""
    body = "".join([grid(axes), *curves])
    right, bottom = axes.width - RIGHT, axes.height - BOTTOM
    if remark:
        body += f'<text class="nb-axis" x="{right - 4}" y="{TOP + 30}" text-anchor="end">{remark}</text>'
    (x0, x1), (y0, y1), unit = axes.x_range, axes.y_range, axes.y_unit
    return (
        f'<svg viewBox="0 0 {axes.width} {axes.height}" role="img" aria-label="{text(title)}: {text(axes.y_title)} '
        f'over {text(axes.x_title)}" data-plot="{LEFT},{TOP},{right},{bottom}" '
        f'data-range="{x0},{x1},{y0 / unit},{y1 / unit}" data-kind="{axes.x_kind}">{body}</svg>'
    )


def grid(axes: Axes) -> str:
    """The scales, each with its unit. Of a `y_kind` "count" only whole numbers are marked."""
    right, bottom = axes.width - RIGHT, axes.height - BOTTOM
    parts, counts = [], axes.y_kind == "count"
    low, high = (end / axes.y_unit for end in axes.y_range)
    for value in ticks(low, high):
        if counts and value != int(value):
            continue
        y = y_at(value * axes.y_unit, axes)
        label = f"{value:,.0f}" if counts else f"{value:g}"
        parts.append(f'<line class="nb-grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="nb-tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    times = axes.x_kind == "time"
    for value in time_ticks(axes.x_range[1]) if times else ticks(*axes.x_range, about=7):
        label = duration(value).replace(" min 00 s", " min").replace(" h 00 min", " h") if times else f"{value:,.6g}"
        x = x_at(value, axes)
        parts.append(f'<line class="nb-mark" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="nb-tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{label}</text>')
    middle = (TOP + bottom) / 2
    centre = (LEFT + right) / 2
    return "".join(parts) + (
        f'<text class="nb-axis" x="{centre}" y="{axes.height - 6}" text-anchor="middle">{axes.x_title}</text>'
        f'<text class="nb-axis" x="12" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 12 {middle})">{axes.y_title}</text>'
    )


def places(points: Sequence[Point], axes: Axes) -> list[Point]:
    """Where `points` lie in the picture."""
    return [(x_at(x, axes), y_at(y, axes)) for x, y in points]


def _curve(line: Line, axes: Axes, ink: Ink) -> str:
    name = f'data-name="{text(line.name)}"'
    drawn = ink.path(line, axes)
    if line.style == "eval":
        where = places([*line.settled, *line.unsettled], axes)
        dots = "".join(f'<circle class="nb-c-eval" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>' for x, y in where)
        return f'<path class="nb-line nb-c-eval" {name} d="{drawn}"/>{dots}'
    area = ""
    if line.style == "used":
        bottom = axes.height - BOTTOM
        ends = [(line.settled or line.unsettled)[0], (line.unsettled or line.settled)[-1]]
        (first, _), (last, _) = places(ends, axes)
        area = f'<path class="nb-area" d="{drawn}L{last:.1f} {bottom}L{first:.1f} {bottom}Z"/>'
    return f'{area}<path class="nb-line nb-c-{line.style}" {name} d="{drawn}"/>'


def x_at(value: float, axes: Axes) -> float:
    """Where `value` lies from the left of the picture."""
    low, high = axes.x_range
    return LEFT + (value - low) / (high - low) * (axes.width - RIGHT - LEFT)


def y_at(value: float, axes: Axes) -> float:
    """Where `value` lies from the top of the picture."""
    low, high = axes.y_range
    return axes.height - BOTTOM - (value - low) / (high - low) * (axes.height - BOTTOM - TOP)
