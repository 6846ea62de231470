"""The loss curves of a run as a picture for its card: an SVG of a few kilobytes, the same in light and dark."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from core.runs.tail import Tail

MOST_POINTS = 400
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 320, 64, 20, 40, 48
TRAIN, HELD_OUT, INK, LINE = "#4c72c4", "#d9822b", "#7a7f87", "#c9cdd3"
Point = tuple[float, float]


def loss_points(metrics: Path) -> tuple[list[Point], list[Point]]:
    """(step, loss) of training and of the held-out rows, from a run's metrics.jsonl; only those that are numbers."""
    rows = Tail(metrics).read()
    return _points(rows, "loss"), _points(rows, "eval_loss")


def _points(rows: list[dict[str, Any]], key: str) -> list[Point]:
    found = [(float(row["step"]), row[key]) for row in rows if isinstance(row.get(key), (int, float))]
    return [(step, loss) for step, loss in found if math.isfinite(loss)]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """`points` as at most `most` means of neighbours."""
    size = max(1, -(-len(points) // most))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def picture(train: Sequence[Point], held_out: Sequence[Point]) -> str:
    """The curves as SVG; empty text where there is not a point to draw."""
    train = thinned(train)
    every = [*train, *held_out]
    if not every:
        return ""
    right = max(1.0, max(x for x, _ in every))
    low, high = min(y for _, y in every), max(y for _, y in every)
    room = max((high - low) * 0.08, 1e-3)
    low, high = max(0.0, low - room), high + room

    def at(point: Point) -> str:
        x = LEFT + point[0] / right * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (point[1] - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return f"{x:.1f},{y:.1f}"

    lines = [_grid(low, high, right)]
    if train:
        lines.append(_curve([at(point) for point in train], TRAIN))
    if held_out:
        places = [at(point) for point in held_out]
        lines.append(_curve(places, HELD_OUT))
        for x, _, y in (place.partition(",") for place in places):
            lines.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{HELD_OUT}"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Loss over steps" font-family="sans-serif" font-size="13">{"".join(lines)}</svg>\n'
    )


def _grid(low: float, high: float, right: float) -> str:
    parts = [_text(LEFT, 22, "train", TRAIN), _text(LEFT + 60, 22, "held out", HELD_OUT)]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
        parts.append(f'<path d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}" stroke="{LINE}" stroke-width="1"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{low + share * (high - low):.3g}", INK, "end"))
        x = LEFT + share * (WIDTH - LEFT - RIGHT)
        parts.append(_text(x, HEIGHT - BOTTOM + 18, f"{share * right:,.0f}", INK, "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "step", INK, "middle"))
    return "".join([*parts, _text(LEFT - 8, 22, "loss", INK, "end")])


def _text(x: float, y: float, words: str, colour: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{escape(words)}</text>'


def _curve(places: Sequence[str], colour: str) -> str:
    return f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}" stroke-width="2"/>'
