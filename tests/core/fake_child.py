"""A child for test_child.py: answers what it is asked, or fails as it is told to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from core.child import Answer, Request, serve


def handle(request: Request) -> Iterator[Answer]:
    """`fail` with that message, or say who answers and where standard input comes from."""
    if "fail" in request:
        raise RuntimeError(request["fail"])
    nothing = Path(os.devnull).stat()
    own = os.fstat(0)
    yield {"done": True, "pid": os.getpid(), "nothing": (own.st_dev, own.st_ino) == (nothing.st_dev, nothing.st_ino)}


if __name__ == "__main__":
    raise SystemExit(serve(handle, lambda request: False))
