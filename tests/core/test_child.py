"""A child process answers line by line, and begins anew where it cannot go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.child import Child
from core.errors import NibbleError


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    child = Child("tests.core.fake_child", tmp_path / "log", "The child")
    yield child
    child.close()


def _pid(child: Child) -> int:
    (answer,) = child.ask({"op": "who"})
    return int(answer["pid"])


def test_libraries_that_look_at_standard_input_find_nothing_there(child: Child) -> None:
    """On Windows they would wait for the parent's next line while the parent waits for them."""
    (answer,) = child.ask({"op": "who"})
    assert answer["nothing"]


def test_an_error_is_told_and_the_child_lives_on(child: Child) -> None:
    before = _pid(child)
    with pytest.raises(NibbleError, match="RuntimeError: shapes do not match"):
        list(child.ask({"fail": "shapes do not match"}))
    with pytest.raises(NibbleError, match="not enough free memory"):
        list(child.ask({"fail": "CUDA error: out of memory"}))
    assert _pid(child) == before


def test_a_gpu_that_refuses_everything_from_now_on_gets_a_new_child(child: Child) -> None:
    before = _pid(child)
    with pytest.raises(NibbleError, match="device-side assert"):
        list(child.ask({"fail": "CUDA error: device-side assert triggered"}))
    process = child._process
    assert process is not None
    assert process.wait(timeout=20) == 1
    assert _pid(child) != before
