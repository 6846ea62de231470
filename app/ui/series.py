"""A curve read as it grows and kept small: at most LIMIT points, whatever its length."""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

LIMIT = 1000
# What the points that are not final yet may add to those that are.
ROOM = 4

Point = tuple[float, float]
Thin = Callable[[list[float], list[float]], list[Point]]


def peaks(xs: list[float], ys: list[float]) -> list[Point]:
    """The lowest and the highest of these points, in their order: what sticks out stays in sight."""
    low, high = ys.index(min(ys)), ys.index(max(ys))
    first, last = (0, len(xs) - 1) if low == high else sorted((low, high))
    return [(xs[first], ys[first]), (xs[last], ys[last])] if first != last else [(xs[0], ys[0])]


def mean(xs: list[float], ys: list[float]) -> list[Point]:
    """One point for all: their mean, at the last of them."""
    return [(xs[-1], sum(ys) / len(ys))]


def highest(xs: list[float], ys: list[float]) -> list[Point]:
    """One point for all: the highest value, at the last of them."""
    return [(xs[-1], max(ys))]


@dataclass
class Series:
    """A curve of at most LIMIT points. When it is full, neighbours are thinned out, and so are all that come after.

    Adding costs the same at the first point and at the millionth. `points` are final: they are only added to, until
    they are thinned out, which `generation` counts.
    """

    thin: Thin = peaks
    stride: int = 1
    generation: int = 0
    points: list[Point] = field(default_factory=list)
    low: float = math.inf
    high: float = -math.inf
    _xs: list[float] = field(default_factory=list)
    _ys: list[float] = field(default_factory=list)
    _newest: tuple[Point, ...] = ()

    def extend(self, xs: list[float], ys: list[float]) -> None:
        """Append points; x never falls."""
        if not xs:
            return
        self.low, self.high = min(self.low, min(ys)), max(self.high, max(ys))
        self._newest = ((xs[-1], ys[-1]),)
        self._xs += xs
        self._ys += ys
        start = 0
        while start + self.stride <= len(self._xs):
            end = start + self.stride
            self.points += self.thin(self._xs[start:end], self._ys[start:end])
            start = end
            if len(self.points) >= LIMIT - ROOM:
                self._thin_out()
        del self._xs[:start], self._ys[:start]

    def _thin_out(self) -> None:
        """Half as many points. Of those that were kept alone two make one; of pairs, two pairs make one."""
        group = 4 if self.thin is peaks else 2
        points: list[Point] = []
        for start in range(0, len(self.points), group):
            xs, ys = zip(*self.points[start : start + group], strict=True)
            points += self.thin(list(xs), list(ys))
        self.stride *= group if self.stride == 1 else 2
        self.points = points
        self.generation += 1

    def unsettled(self) -> list[Point]:
        """What comes after `points`: it may be another the next time, but the newest is among it."""
        thinned = self.thin(self._xs, self._ys) if self._xs else []
        shown = thinned or self.points[-1:]
        return [*thinned, *(point for point in self._newest if shown[-1][0] != point[0])]

    def all(self) -> list[Point]:
        """The points so far, the newest included."""
        return self.points + self.unsettled()

    def at_each(self, xs: list[float]) -> list[float]:
        """The value at each of `xs`: between two points on the straight line, beyond the ends as at them."""
        points = self.all()
        known = [x for x, _ in points]
        return [_between(points, bisect_left(known, x), x) for x in xs]


def _between(points: list[Point], after: int, x: float) -> float:
    if after in (0, len(points)):
        return points[min(after, len(points) - 1)][1]
    (x0, y0), (x1, y1) = points[after - 1], points[after]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
