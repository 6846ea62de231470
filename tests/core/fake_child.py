"""A child for test_child.py: answers what it is asked, or fails as it is told to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from core.child import Answer, Request, serve
from core.errors import NibbleError

OVER: list[bool] = []


def handle(request: Request) -> Iterator[Answer]:
    """`fail` or `refuse` with that message, or say who answers and whether standard input is a device."""
    OVER[:] = [True] * ("over" in request)
    if "fail" in request:
        raise RuntimeError(request["fail"])
    if "refuse" in request:
        raise NibbleError(request["refuse"])
    yield {"done": True, "pid": os.getpid(), "nothing": stat.S_ISCHR(os.fstat(0).st_mode)}


if __name__ == "__main__":
    raise SystemExit(serve(handle, lambda request: False, lambda: bool(OVER)))
