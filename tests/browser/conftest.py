"""The real app as a process of its own, and a real Chromium looking at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.app_page import open_page
from tests.app_process import App, end, serve


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One app for a file's tests."""
    running = serve(tmp_path_factory.mktemp("workspace"))
    yield running
    end(running)


@pytest.fixture
def page(app: App, browser: Browser) -> Iterator[Page]:
    """The app's page in a browser that has never been there, which must not meet a script error."""
    with open_page(browser, app.url) as opened:
        yield opened
