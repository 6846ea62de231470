"""A parameter of a test that is run with `--full` only."""

from typing import Any

import pytest


def in_full(*values: Any) -> Any:
    """`values` for `pytest.mark.parametrize`, left out of the short suite."""
    return pytest.param(*values, marks=pytest.mark.full)
