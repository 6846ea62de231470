"""The experts of a mixture as the device will compute them: meta tensors have no device to ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from core.model import moe


@contextmanager
def experts_on(kind: str) -> Iterator[None]:
    """Inside, experts are dequantised all at once or one after the other as on a device of `kind`: a GPU of today."""
    at_once = moe.suits_groups if kind == "cuda" else lambda *_: False
    with mock.patch.object(moe, "at_once", at_once):
        yield
