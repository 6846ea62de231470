"""A child for test_child.py: answers what it is asked, or fails as it is told to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from core.errors import NibbleError
from core.system.child_process import Answer, Request, serve

OVER: list[bool] = []


def handle(request: Request) -> Iterator[Answer]:
    """`fail` or `refuse` with that message, `leave` with that code or `once`, or say who answers."""
    OVER[:] = [True] * ("over" in request)
    if "fail" in request:
        raise RuntimeError(request["fail"])
    if "refuse" in request:
        raise NibbleError(request["refuse"])
    if "leave" in request:
        os._exit(int(request["leave"]))
    if "once" in request and not Path(request["once"]).exists():
        Path(request["once"]).touch()
        os._exit(0)
    yield {"done": True, "pid": os.getpid(), "nothing": stat.S_ISCHR(os.fstat(0).st_mode)}


if __name__ == "__main__":
    raise SystemExit(serve(handle, lambda request: False, lambda: bool(OVER)))
