"""The page on a workspace of the version before: its settings, runs, conversation and votes are on the screen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.app_process import App, end, serve
from tests.before.workspace_07565aa import unpack

pytestmark = [pytest.mark.browser, pytest.mark.full]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app on the workspace as the version before left it."""
    running = serve(unpack(tmp_path_factory.mktemp("before")))
    yield running
    end(running)


def test_what_was_on_the_page_is_on_it_still(page: Page) -> None:
    """The form was left at rank 3, and the adapter had said "Hows!" in the chat."""
    expect(page.get_by_label("Rank", exact=True).first).to_have_value("3")

    page.get_by_role("tab", name="Runs").click(timeout=180_000)  # first the page puts every kept setting on the form
    expect(page.locator(".nb-runs .nb-link")).to_have_text(["Stopped", "Finished"])

    page.get_by_role("tab", name="Chat").click()
    expect(page.locator(".nb-talk")).to_contain_text("Hows!")

    page.get_by_role("tab", name="Arena").click()
    board = page.locator(".nb-board")
    expect(board).to_contain_text("Stopped")
    expect(board).to_contain_text("Finished")
