"""The README's pictures, taken from the real app: the data, a training, a chat, the runs.

    python docs/screenshots.py [--browser /path/to/chromium]

Trains the quickstart on a workspace of its own (some minutes), so the numbers in the pictures are real.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, FloatRect, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1400, 900
PATIENCE_SECONDS = 900


def main() -> int:
    """Start the app, take the pictures, end the app."""
    sys.path.insert(0, str(ROOT))
    from app.server.instance import find_browser

    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--browser", default=find_browser())
    chosen = options.parse_args().browser
    if chosen is None:
        print("No Chrome, Chromium or Edge was found; name one with --browser.", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nibble-pictures-") as folder, sync_playwright() as playwright:
        server = _serve(folder)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            browser = playwright.chromium.launch(executable_path=chosen, args=["--no-sandbox", "--disable-gpu"])
            _visit(browser, url)
        finally:
            server.terminate()
            server.wait(timeout=30)
    size = sum(image.stat().st_size for image in IMAGES.glob("*.png"))
    print(f"{size / 1e6:.2f} MB in {IMAGES}")
    return 0


def _serve(folder: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "core.cli", "ui", "--no-browser", "--port", "0", "--data-dir", folder]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


def _open(browser: Browser, url: str) -> Page:
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
    page.set_default_timeout(120_000)
    page.goto(url)
    page.get_by_role("button", name="Start training").wait_for()
    return page


def _visit(browser: Browser, url: str) -> None:
    page = _open(browser, url)
    page.locator(".nb-tokens").wait_for()
    page.get_by_text("Checks").wait_for()
    page.get_by_text("Choices and reasons").wait_for()
    page.get_by_role("tab", name="Data").click()
    page.get_by_text("Conversation lengths").wait_for()
    _take(page, "data")
    page.get_by_role("tab", name="Train").click()
    page.get_by_role("button", name="Try it").click()
    _wait_for(page, lambda: "training" in _state(page) and _step(page) >= 60)
    _take(page, "train-during")
    _wait_for(page, lambda: "finished" in _state(page))
    page.get_by_role("button", name="Chat with it").click()
    page.get_by_role("button", name="Generation settings").click()
    page.get_by_label("Greedy").locator("visible=true").check()
    _ask(page, "Hi, my name is Lucy.", 1)
    page.get_by_label("Base", exact=True).check()
    _ask(page, "Hi, my name is Lucy.", 2)
    _take(page, "chat")
    page.get_by_role("tab", name="Runs").click()
    page.locator("tr[data-run]").first.click()
    page.locator(".nb-chart:visible").first.wait_for()
    _take(page, "runs", 1660)  # below stands the folder of these pictures' own workspace


def _state(page: Page) -> str:
    return page.locator(".nb-side .nb-card:visible .nb-state").first.get_attribute("class") or ""


def _step(page: Page) -> int:
    figure = page.locator(".nb-figure:visible:has-text('step') b").first
    return int(figure.inner_text().split(" of ")[0].replace(",", "")) if figure.count() else 0


def _ask(page: Page, question: str, replies: int) -> None:
    page.get_by_label("Message", exact=True).fill(question)
    page.get_by_role("button", name="Send").click()
    answers = page.locator(".nb-talk .bot.message")
    _wait_for(page, lambda: answers.count() == replies and "tokens/s" in answers.last.inner_text())


def _wait_for(page: Page, holds: object) -> None:
    assert callable(holds)
    ends = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > ends:
            raise TimeoutError("The app did not get there in time.")
        page.wait_for_timeout(500)


def _take(page: Page, name: str, height: int | None = None) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(1500)  # the bars' movement ends
    clip: FloatRect | None = {"x": 0, "y": 0, "width": WIDTH, "height": height} if height else None
    page.screenshot(path=IMAGES / f"{name}.png", full_page=True, clip=clip)
    print(name, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
