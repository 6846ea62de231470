"""While one looks elsewhere: the page's title says how the run is, and the browser tells that it has ended, once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.store import Run
from core.system.process import process_started
from core.workspace import Workspace
from tests.app_process import App
from tests.waiting import wait_until

pytestmark = pytest.mark.full
# What the page tells stays where the test can read it; a permission is given on the first request.
RECORD = """
window.told = [];
window.Notification = class {
  constructor(title, options) { window.told.push([title, options.body]); }
  static get permission() { return localStorage.getItem("given") ?? "default"; }
  static requestPermission() {
    localStorage.setItem("given", "granted");
    return Promise.resolve("granted");
  }
};
"""


@pytest.fixture
def visitor(app: App, browser: Browser) -> Iterator[BrowserContext]:
    """A browser that records what it is to tell."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.add_init_script(RECORD)
    yield context
    context.close()


def _open(app: App, visitor: BrowserContext) -> Page:
    page = visitor.new_page()
    page.goto(app.url)
    page.get_by_text("are free now").wait_for(timeout=60_000)
    return page


def _at_work(workspace: Workspace, name: str) -> Run:
    """A run that this process says it is at."""
    run = create_run(workspace, make_recipe({"name": name}), {"file": "x", "sha256": "0", "name": "x"})
    me = {"pid": os.getpid(), "pid_started": process_started(os.getpid()), "started": time.time()}
    run.write_status(state="training", step=90, total=200, **me)
    return run


def test_the_title_and_a_notification_tell_of_a_run(app: App, visitor: BrowserContext) -> None:
    run = _at_work(app.workspace, "Pirate <b>")
    page = _open(app, visitor)
    expect(page).to_have_title("45 % · step 90 of 200 · Pirate <b> · Nibble")
    bell = page.get_by_role("button", name="Notify me when it ends")
    assert page.evaluate("window.told") == [], "nobody is asked on load"
    bell.click()
    expect(bell).to_be_hidden()
    other = _open(app, visitor)
    expect(other.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    expect(other.get_by_role("button", name="Notify me when it ends")).to_be_hidden()
    run.write_status(state="failed", ended=time.time(), message="The disk is full.")
    expect(page).to_have_title("Failed · Pirate <b> · Nibble")
    assert page.evaluate("window.told") == [
        ["Nibble", "You will be notified here when the run ends."],
        ["Failed · Pirate <b>", "The disk is full."],
    ]
    page.reload()
    expect(page).to_have_title("Failed · Pirate <b> · Nibble")
    assert page.evaluate("window.told") == [], "the test was delivered"


def test_a_run_that_another_follows_is_told_too(app: App, visitor: BrowserContext) -> None:
    visitor.add_init_script('localStorage.setItem("given", "granted")')
    first = _at_work(app.workspace, "first")
    page = _open(app, visitor)
    expect(page).to_have_title("45 % · step 90 of 200 · first · Nibble")
    first.write_status(state="finished", ended=time.time(), message="Finished after 200 steps.")
    second = _at_work(app.workspace, "second")
    expect(page).to_have_title("45 % · step 90 of 200 · second · Nibble")
    wait_until("the first one's end", lambda: page.evaluate("window.told"))
    assert page.evaluate("window.told") == [["Finished · first", "Finished after 200 steps."]]
    second.write_status(state="stopped", ended=time.time(), message="")
    expect(page).to_have_title("Stopped · second · Nibble")
