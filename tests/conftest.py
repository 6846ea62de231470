"""What all tests share. The environment is set before anything is imported that would read it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.run import ENVIRONMENT, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

os.environ.update(ENVIRONMENT)
os.environ.setdefault("NIBBLE_DATA_DIR", tempfile.mkdtemp(prefix="nibble-test-"))
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several that share the tests: a workspace, and a core, of its own
    os.environ["NIBBLE_DATA_DIR"] = tempfile.mkdtemp(prefix="worker-", dir=os.environ["NIBBLE_DATA_DIR"])
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without an NVIDIA card the tests marked `gpu` are skipped. Nothing else may be."""
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_tests:
        from core.setup.wheels import find_nvidia

        cards, _, _ = find_nvidia()
        if not cards:
            for item in gpu_tests:
                item.add_marker(pytest.mark.skip(reason="no NVIDIA card here"))


@pytest.fixture
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace of the test's own, which the commands use unless they are given another."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.setenv("NIBBLE_DATA_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The system's browser. A machine without one fails here: a browser test is never skipped."""
    path = find_chromium()
    assert path, "no Chromium, Chrome or Edge: `python launch.py test` installs it on Debian and Ubuntu"
    return path


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator["Browser"]:
    """It, running: one for a file's tests."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # ms; on two cores that train beside it a page has to wait its turn
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield found
        found.close()
