"""Every route of an app, those of mounted routers too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def routes_of(routes: list[Any]) -> Iterator[tuple[str, str]]:
    for route in routes:
        below = getattr(route, "original_router", route)
        if getattr(below, "routes", None):
            yield from routes_of(below.routes)
        elif getattr(route, "path", None):
            yield from ((route.path, method) for method in route.methods or ("GET",))
