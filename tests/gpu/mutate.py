"""Undoes one thing in the code for a test, to see that some other test would notice."""

import inspect
import textwrap
from typing import Any

import pytest


def mutate(patch: pytest.MonkeyPatch, owner: Any, name: str, what: str, instead: str = "") -> None:
    """Give `owner`, a module or class, the function `name` with `what`, which must be in it once, replaced."""
    raw = inspect.getattr_static(owner, name)
    function = inspect.unwrap(raw.__func__ if isinstance(raw, staticmethod) else raw)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(what) == 1, f"{name} has {source.count(what)} times {what!r}: mend the mutation"
    changed = source.replace(what, instead).replace("super()", f"super({owner.__name__}, self)")
    made: dict[str, Any] = {}
    exec(compile(changed, f"<mutated {name}>", "exec"), function.__globals__, made)
    patch.setattr(owner, name, made[name])
