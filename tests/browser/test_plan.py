"""The memory plan in a real browser: it follows the settings, and what does not fit is mended by a press."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from core.workspace import Workspace, read_json, write_json
from tests.app_process import App, end, serve

pytestmark = pytest.mark.browser

PATIENCE = 90_000  # ms; the helper's imports alone take ten seconds on two cores


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app with a form that leaves the plan few ways to try."""
    folder = tmp_path_factory.mktemp("workspace")
    write_json(Workspace.open(folder).state / "form.json", {"train.micro_batch": 16})
    running = serve(folder)
    yield running
    end(running)


def _figure(page: Page, name: str) -> Locator:
    return page.locator(".nb-plan .nb-figure").filter(has=page.get_by_text(name, exact=True)).locator("b")


def _set_budget(page: Page, gib: str) -> None:
    budget = page.locator(".nb-budget input[type=number]")
    budget.fill(gib)
    budget.press("Tab")


def test_the_plan_follows_the_settings_and_mends_what_does_not_fit(page: Page, app: App) -> None:
    plan = page.locator(".nb-plan")
    expect(plan.locator(".nb-state")).to_have_text("Fits", timeout=PATIENCE)
    expect(plan.locator(".nb-stale")).to_have_count(0)
    expect(plan.locator(".nb-m-legend")).to_contain_text("Base model")
    expect(_figure(page, "time")).not_to_be_empty()

    # Another rank: the last plan stays, greyed, until the new one is there.
    before = plan.locator(".nb-m-legend").inner_text()
    rank = page.get_by_label("Rank", exact=True).locator("visible=true")
    rank.fill("64")
    rank.press("Tab")
    expect(page.locator(".nb-plan.nb-stale")).to_contain_text("planning…")
    expect(page.locator(".nb-plan.nb-stale")).to_have_count(0, timeout=PATIENCE)
    assert plan.locator(".nb-m-legend").inner_text() != before

    # A tiny budget: it does not fit, and the smallest that would do is a press away.
    _set_budget(page, "0.3")
    expect(plan.locator(".nb-state")).to_have_text("Does not fit", timeout=PATIENCE)
    expect(_figure(page, "budget")).to_have_text("307 MiB")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    plan.locator("li").filter(has_text="Memory budget of").get_by_role("button", name="Use it").click()
    expect(plan.locator(".nb-state")).to_have_text("Fits", timeout=PATIENCE)
    kept = str(read_json(app.workspace.state / "form.json")["budget"])
    expect(page.locator(".nb-budget input[type=number]")).to_have_value(kept.removesuffix("GiB"))

    # A setting that cannot be is refused in the plan's place.
    rank.fill("0")
    rank.press("Tab")
    expect(plan.locator("header small")).to_contain_text("Rank (lora.rank): 0 is not valid")
