"""The app on a machine with a card, in a real browser: what it shows before, during and after a run."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from core.workspace import ROOT
from tests.app_page import open_page
from tests.app_process import App, end, serve
from tests.gpu_standin.machine import AMPERE
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.full]  # it takes a minute and a half

PATIENCE = 300_000  # ms
GIB = 1024  # MiB


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app, whose processes see the card."""
    paths = os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])
    running = serve(tmp_path_factory.mktemp("workspace"), PYTHONPATH=paths)
    yield running
    end(running)


@pytest.fixture
def page(app: App, browser: Browser) -> Iterator[Page]:
    """Its page."""
    with open_page(browser, app.url) as opened:
        yield opened


def _points(page: Page, name: str) -> int:
    path = page.locator(f'path[data-name^="{name}"]').locator("visible=true").first
    return (path.get_attribute("d") or "").count("L") + 1 if path.count() else 0


def test_a_person_sees_the_card_before_during_and_after_a_run(page: Page, app: App, capfd: Any) -> None:
    shots = os.environ.get("NIBBLE_SCREENSHOTS")

    def take(name: str) -> None:
        if shots:
            page.screenshot(path=Path(shots) / f"{name}.png", full_page=True)

    expect(page.locator(".nb-device")).to_have_text(re.compile(rf"^{AMPERE.name} · 12 GiB, 11\.\d GiB free$"))
    expect(page.get_by_text("In GiB, of 12.0 on this card.")).to_be_visible()
    expect(page.locator(".nb-scale")).to_contain_text(re.compile(r"11\.\d GiB free now"))
    budget = page.locator(".nb-budget input[type=range]")
    assert float(budget.get_attribute("max") or 0) == AMPERE.mib / GIB
    assert 10 < float(budget.input_value()) < 12
    expect(page.locator(".nb-plan .nb-state")).to_have_text("Fits", timeout=PATIENCE)
    take("before")

    page.get_by_role("button", name="Try it").click()
    state = page.locator(".nb-side .nb-card .nb-state").locator("visible=true").first
    expect(state).to_have_text("Training", timeout=PATIENCE)
    for drawn in ("tensors", "reserved by torch", "used by the process"):
        wait_until(f"{drawn} is drawn", lambda drawn=drawn: _points(page, drawn) >= 3, 300)
    expect(page.locator(".nb-figure:has-text('GPU')").locator("visible=true").first).to_contain_text("61 °C")
    expect(page.locator(".nb-figure:has-text('GPU')").locator("visible=true").first).to_contain_text("214 W")
    take("during")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1400, "height": 1000})

    page.get_by_role("button", name="Stop", exact=True).click()
    expect(state).to_have_text("Stopped", timeout=PATIENCE)
    take("after")
    page.get_by_role("button", name="Chat with it").click()
    page.get_by_label("Message", exact=True).fill("What is the job of a vet?")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".nb-talk .bot.message").last).to_contain_text("tokens/s", timeout=PATIENCE)
    page.get_by_role("tab", name="Train").click()
    expect(page.locator(".nb-said.block").filter(has_text="is using the GPU")).to_be_visible()
    take("held")
    assert "could not be brought up to date" not in capfd.readouterr().err
