"""The test command itself: where it finds a browser, and what it does where there is none."""

import os
import shutil
from pathlib import Path

import pytest

from tests import run


def put(folder: Path, name: str, script: str = "") -> Path:
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    return tool


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no browser, and only what the test puts into this folder in PATH."""
    for tool in ("sh", "touch", "chmod"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NIBBLE_CHROMIUM", raising=False)
    monkeypatch.setattr(run, "CHROMIUM_PLACES", ())
    return tmp_path


def test_any_of_the_known_browsers_will_do(bare_path: Path) -> None:
    assert run.find_chromium() == ""
    browser = put(bare_path, "google-chrome")
    assert run.find_chromium() == str(browser)


def test_the_browser_can_be_named(bare_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIBBLE_CHROMIUM", "/opt/thorium/thorium")
    assert run.find_chromium() == "/opt/thorium/thorium"


def test_on_debian_a_missing_browser_is_installed(bare_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    chromium = bare_path / "chromium"
    put(bare_path, "apt-get", f'[ "$2" = install ] && touch "{chromium}" && chmod 755 "{chromium}"; exit 0')
    assert run.ensure_chromium() == ""
    assert run.find_chromium() == str(chromium)


def test_where_it_cannot_be_installed_the_run_fails(bare_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "install one, or name it in NIBBLE_CHROMIUM" in run.ensure_chromium()
    put(bare_path, "apt-get", "exit 100")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "no right to install it" in run.ensure_chromium()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "`apt-get update` failed" in run.ensure_chromium()
