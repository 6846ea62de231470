"""A child process answers line by line, and begins anew where it cannot go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import ChildError, NibbleError
from core.system.child_process import Child


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    child = Child("tests.core.system.fake_child", tmp_path / "log", "The child")
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
    with pytest.raises(NibbleError, match="Not enough free memory"):
        list(child.ask({"fail": "CUDA error: out of memory"}))
    assert _pid(child) == before


@pytest.mark.parametrize("how", ["fail", "refuse"])
def test_a_gpu_that_refuses_everything_from_now_on_gets_a_new_child(child: Child, how: str) -> None:
    before = _pid(child)
    with pytest.raises(NibbleError, match="device-side assert"):
        list(child.ask({how: "tiny cannot be loaded: CUDA error: device-side assert triggered"}))
    assert _pid(child) != before


def test_a_child_that_says_that_it_is_over_ends_after_its_answer(child: Child) -> None:
    before = _pid(child)
    with pytest.raises(NibbleError, match="adapter is gone"):
        list(child.ask({"refuse": "The adapter is gone.", "over": True}))
    assert _pid(child) != before
    between = _pid(child)
    with pytest.raises(NibbleError, match="no such model"):
        list(child.ask({"refuse": "There is no such model: no such model."}))
    assert _pid(child) == between


def test_a_child_that_leaves_as_it_is_asked_is_followed_by_another(child: Child, tmp_path: Path) -> None:
    """The chat gives way to a run, and somebody's next question is already on its way."""
    before = _pid(child)
    (answer,) = child.ask({"once": str(tmp_path / "left")})
    assert answer["pid"] != before
    for code in (0, 3):  # more than once, or for another reason, is told
        with pytest.raises(ChildError, match=f"exit code {code}"):
            list(child.ask({"leave": code}))
    assert _pid(child) != answer["pid"]
