"""The app's page in a browser that has never been there, which must not meet a script error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@contextmanager
def open_page(browser: Browser, url: str) -> Iterator[Page]:
    """The page at `url`, once it has looked up what it shows."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.set_default_timeout(60_000)
    opened.goto(url)
    opened.get_by_text("are free now").wait_for()
    yield opened
    context.close()
    assert not errors
