"""Rows as rendering leaves them, made of numbers alone."""

from __future__ import annotations

from core.data.rendering.render import Rendered


def rendered_rows(*lengths: int) -> list[Rendered]:
    """A row of so many tokens for each of `lengths`; all but its first is trained."""
    return [Rendered(i, list(range(3, 3 + n)), [False] + [True] * (n - 1), n) for i, n in enumerate(lengths)]
