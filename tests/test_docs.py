"""The pages name what there is: every path and link in them leads somewhere, and the walk is as long as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.workspace import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
_PATH = re.compile(r"`((?:core|app|tests|docs|bench|presets)/[\w./-]*)`")
_MODULE = re.compile(r"`((?:core|app)(?:\.\w+)+)")
_LINK = re.compile(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)")
_STOP = re.compile(r"^\| \d+ \| `([^`]+)` \| (\d+) \|", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [path for path in _PATH.findall(text) if not (ROOT / path).exists()] == []
    modules = [ROOT / name.replace(".", "/") for name in _MODULE.findall(text)]
    assert [each for each in modules if not each.is_dir() and not each.with_suffix(".py").exists()] == []
    assert [link for link in _LINK.findall(text) if not (page.parent / link).exists()] == []


def test_the_walk_is_an_evening_long() -> None:
    """Its figures may be off by what a change or two make of them."""
    stops = _STOP.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    counted = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path, _ in stops}
    assert 2_500 < sum(counted.values()) < 3_500
    assert [path for path, lines in stops if abs(counted[path] - int(lines)) > 40] == []
