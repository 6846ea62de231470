"""These tests can only be a second pair of eyes while they share nothing with what they look at."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = [*sorted(HERE.glob("*.py")), HERE.parent / "tiny.py"]


def _imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module))
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_of_nibble_is_imported(file: Path) -> None:
    for name in _imported(file):
        first, *more = name.split(".")
        assert first not in ("core", "app", "bench", "launch", "presets"), name
        assert first != "tests" or more[0] in ("outside", "tiny"), name
