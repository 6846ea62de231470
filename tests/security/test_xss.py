"""What data, models, names, logs and conversations say is text on the screen: nothing of it becomes alive.

In a real Chromium, without our content security policy: that nothing runs is not to be its merit alone.
"""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect
from playwright.sync_api import Error as PlaywrightError

from app.chat.conversation import Turn
from app.main import Server, Serving, launch
from app.server.guard import Door
from app.server.instance import choose_port
from app.server.keys import workspace_token
from app.ui import background_job
from core.arena.votes import Side, Vote
from core.arena.votes_csv import write_table
from core.chat.client import ChatClient
from core.generation.reply import PartialReply
from core.preflight.process import Helper
from core.system.addresses import Names
from core.untrusted.paths import Reach
from core.workspace import Workspace, write_json
from tests.security.hostile import HostileHelper, fill
from tests.security.payloads import BAD, HTML, MARKDOWN, NO_HTML, PAYLOADS, SAMPLE, moments
from tests.security.screen import ALIVE, CANARY, Watched

pytestmark = pytest.mark.browser

# What leads to a refusal on each tab. What was chosen on Train is refused on Data too: so Data comes first.
REFUSES = {
    "Data": (),
    "Train": ("Start training",),
    "Chat": ("Send", "Start the API"),
    "Side by side": ("Compare",),
    "Arena": ("Next prompt", "Prepare replies", "Judge the prepared replies"),
    "Export": ("Export", "Import", "Preview upload"),
    "System": ("Sign in", "Save", "Send a test"),
}
TAKES_TEXT = "textarea, input:not([type]), input[type=text], input[type=password]"


def _serve(folder: Path) -> Server:
    workspace = Workspace.open(folder)
    door = Door(Names(choose_port(0)), token=workspace_token(workspace.state))
    return launch(workspace, Serving(door, Reach.of(workspace)))


def _address(server: Server) -> str:
    door = server.demo.app.middleware_stack.door
    return f"http://127.0.0.1:{door.names.port}/?token={door.token}"


def _watched(server: Server, browser: Browser, policy: bool = False) -> Watched:
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, bypass_csp=not policy)
    context.add_init_script(CANARY)
    address = _address(server)
    watched = Watched(context.new_page(), address.partition("?")[0])
    watched.page.set_default_timeout(60_000)
    watched.watch()
    watched.page.goto(address)
    watched.page.get_by_text("are free now").wait_for()
    return watched


def _menu(watched: Watched, label: str) -> None:
    """Unfold a menu, look at what it offers, and fold it again."""
    field = watched.page.get_by_label(label, exact=True).locator("visible=true").first
    before = field.input_value()
    field.fill("p")  # all that have a letter in common with the payloads
    watched.page.locator("[role=option]", has_text="pwned").first.wait_for()
    watched.look(f"menu {label}")
    field.fill(before)
    field.press("Enter")


def _train_and_data(watched: Watched) -> None:
    page = watched.page
    expect(page.locator(".nb-tokens").first).to_contain_text("pwned")
    watched.look("Train")
    _menu(watched, "Base model")
    _menu(watched, "Dataset")
    page.get_by_role("tab", name="Run", exact=True).click()
    expect(page.locator(".nb-says").first).to_contain_text("before")  # of whichever run is the newest
    watched.look("the run on the Train tab")
    watched.open("Data")
    expect(page.locator(".nb-found .nb-tokens").first).to_contain_text("pwned")
    page.get_by_role("button", name="Map columns").click()
    _menu(watched, "Prompt")
    page.get_by_role("button", name="Next row ›").locator("visible=true").click()
    watched.look("Data")


def _chat(watched: Watched, count: int, menu: bool = True) -> None:
    page = watched.page
    watched.open("Chat")
    expect(page.locator(".nb-talk .bot.message")).to_have_count(count)
    page.wait_for_timeout(500)  # formulas and code are drawn after the text
    watched.look("Chat")
    if menu:
        _menu(watched, "Chat model")


def _side_by_side(watched: Watched) -> None:
    page = watched.page
    page.get_by_role("button", name="Generation settings").locator("visible=true").first.click()
    page.get_by_role("tab", name="Side by side").click()
    expect(page.locator(".nb-side-reply").first).to_contain_text("pwned")
    page.wait_for_timeout(300)
    watched.look("side by side")


def _arena(watched: Watched) -> None:
    page = watched.page
    watched.open("Arena")
    expect(page.locator(".nb-board")).to_contain_text("pwned")
    page.get_by_role("button", name="Next pair").click()
    expect(page.locator(".nb-reply-text").last).to_contain_text("pwned")
    page.wait_for_timeout(300)
    watched.look("a blind match")
    page.locator("#nb-vote-tie").click()
    expect(page.locator(".nb-told").first).to_contain_text("pwned")
    watched.look("the names in the arena")
    _menu(watched, "Model A")


def _runs(watched: Watched) -> None:
    """The newest runs, in which everything is said by all payloads, and the table page by page."""
    page = watched.page
    watched.open("Runs")
    rows, turn = page.locator(".nb-runs tr[data-run]"), page.get_by_role("button", name="Next ›")
    rows.first.wait_for()
    _pick_two(watched, rows)
    for at in range(3):
        rows.nth(at).locator(".nb-link").click()
        expect(rows.nth(at)).to_have_class("nb-open")
        watched.look(f"run {at}")
    while turn.is_enabled():
        first = rows.first.get_attribute("data-run") or ""
        turn.click()
        expect(rows.first).not_to_have_attribute("data-run", first)
        watched.look("a page of runs")
    page.get_by_label("Search", exact=True).fill(BAD)
    watched.look("a search")


def _pick_two(watched: Watched, rows: Locator) -> None:
    page = watched.page
    rows.nth(1).locator("[data-pick]").click()
    rows.nth(0).locator("[data-pick]").click()
    page.get_by_role("button", name="Compare 2 runs").click()
    page.get_by_role("button", name="Close comparison").wait_for()
    watched.look("a comparison")
    rows.first.locator(".nb-link").click()
    for fold in ("Name, tags and note", "Last log lines"):
        page.get_by_role("button", name=fold).click()
    page.get_by_role("button", name="Delete…").click()
    expect(page.locator(".nb-sure")).to_contain_text("for good")
    watched.look("the question before deleting")
    page.get_by_role("button", name="Cancel").click()


def _others(watched: Watched) -> None:
    watched.open("Export")
    expect(watched.page.locator(".nb-earlier")).to_contain_text("pwned")
    watched.look("Export")
    _menu(watched, "Run")
    watched.open("System")
    expect(watched.page.locator(".nb-disk")).to_contain_text("pwned")
    watched.look("System")


def _hostile(folder: Path, payloads: dict[str, str], patch: pytest.MonkeyPatch) -> Server:
    fill(Workspace.open(folder), payloads)
    patch.setattr(Helper, "warm", lambda self: None)
    patch.setattr(Helper, "call", lambda self, op, **asked: desk(op, **asked))
    desk = HostileHelper(list(payloads.values()))
    return _serve(folder)


@pytest.fixture
def environment() -> Iterator[None]:
    """What serving does to the environment is undone."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("environment")
def test_a_sample_of_payloads_is_text(tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = {name: PAYLOADS[name] for name in SAMPLE}
    server = _hostile(tmp_path, payloads, monkeypatch)
    try:
        watched = _watched(server, browser)
        _chat(watched, len(payloads), menu=False)
        watched.open("Runs")
        watched.page.locator(".nb-runs tr[data-run]").first.wait_for()
        watched.look("the table of runs")
        watched.done()
    finally:
        server.stop()


@pytest.mark.full
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("policy", [False, True], ids=["without the policy", "with the policy"])
def test_every_payload_is_text_everywhere(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch, policy: bool
) -> None:
    """With the policy nothing may be stopped by it either: a breach of it is a fault."""
    server = _hostile(tmp_path, PAYLOADS, monkeypatch)
    try:
        watched = _watched(server, browser, policy)
        _train_and_data(watched)
        _chat(watched, len(PAYLOADS))
        _side_by_side(watched)
        _arena(watched)
        _runs(watched)
        _others(watched)
        watched.done()
    finally:
        server.stop()


@pytest.mark.full
@pytest.mark.usefixtures("environment")
def test_a_reply_is_text_at_every_moment_of_its_way(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every moment as a page finds it that is loaded then. Each answers a question: neighbours are drawn as one."""
    monkeypatch.setattr(Helper, "warm", lambda self: None)
    workspace = Workspace.open(tmp_path)
    replies = moments(PAYLOADS)
    turns = [turn for text in replies for turn in (Turn("user", "And?"), Turn("assistant", text))]
    write_json(workspace.state / "talk.json", [asdict(turn) for turn in turns])
    server = _serve(tmp_path)
    try:
        watched = _watched(server, browser)
        _chat(watched, len(replies), menu=False)
        watched.done()
    finally:
        server.stop()


class Growing:
    """A voice that says `texts` one after another, each of them once the page has shown the one before."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.shown: set[int] = set()
        self.turn = threading.Condition()

    def saw(self, number: int) -> None:
        """The page has shown text `number`."""
        with self.turn:
            self.shown.add(number)
            self.turn.notify()

    def stream(self, *asked: Any, **how: Any) -> Iterator[PartialReply]:
        """In the place of the client's; a text that is never shown holds the rest up for a while only."""
        for number, text in enumerate(self.texts):
            yield PartialReply(text, number, 1.0, 0.1)
            with self.turn:
                self.turn.wait_for(lambda shown=number: shown in self.shown, 5)
        yield PartialReply("The end", len(self.texts), 1.0, 0.1, done=True, ends="end")


@pytest.mark.full
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("payloads", [HTML, MARKDOWN], ids=["HTML", "Markdown"])
def test_a_reply_is_text_while_it_grows(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch, payloads: dict[str, str]
) -> None:
    """Every moment as the page makes it out of the one before: each is looked at before the next one comes."""
    voice = Growing(moments(payloads))
    monkeypatch.setattr(Helper, "warm", lambda self: None)
    monkeypatch.setattr(ChatClient, "stream", voice.stream)
    monkeypatch.setattr(background_job, "LOOKS_A_SECOND", 100)  # so that it does not take minutes
    server = _serve(tmp_path)
    try:
        watched = _watched(server, browser)
        watched.open("Chat")
        watched.look_on(".nb-talk", voice.saw)
        watched.page.get_by_label("Message", exact=True).fill("And?")
        watched.page.get_by_role("button", name="Send", exact=True).click()
        expect(watched.page.locator(".nb-talk .bot.message")).to_contain_text("The end", timeout=300_000)
        watched.look("the reply", seen="The end")
        assert not set(range(len(voice.texts))) - voice.shown
        watched.done()
    finally:
        server.stop()


@pytest.mark.full
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", ["image that fails", "end of a double-quoted attribute", "picture"])
def test_what_is_typed_and_dropped_is_text_in_the_refusals(tmp_path: Path, browser: Browser, name: str) -> None:
    """With the real helper: a file with a hostile name, columns and rows, and a hostile text in every field."""
    server = _serve(tmp_path)
    try:
        watched = _watched(server, browser)
        _drop(watched)
        for tab, buttons in REFUSES.items():
            watched.open(tab)
            if tab == "Data":
                watched.page.get_by_role("button", name="Map columns").click()
                watched.page.get_by_label("Prompt", exact=True).locator("visible=true").wait_for()
            _unfold(watched)
            _type(watched, PAYLOADS[name])
            _press(watched, tab, buttons, PAYLOADS[name])
        watched.done()
    finally:
        server.stop()


def _drop(watched: Watched) -> None:
    rows = [
        {"messages": [{"role": "user", "content": each}, {"role": "assistant", "content": each}]}
        for each in HTML.values()
    ]
    rows += [{"messages": [{"role": BAD, "content": BAD}], BAD: BAD}]
    body = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    watched.open("Data")
    row = watched.page.locator(".nb-found .nb-tokens").first
    row.wait_for()  # of the dataset that was chosen before
    field = watched.page.locator(".nb-data input[type=file]")
    field.set_input_files({"name": f"{BAD}.jsonl", "mimeType": "application/json", "buffer": body})
    expect(row).to_contain_text("pwned", timeout=120_000)
    watched.look("a file that was dropped")


def _unfold(watched: Watched) -> None:
    """Open every fold in sight. One that is open is none of `shut` any more: the next one is the first then."""
    shut = watched.page.locator("button.label-wrap:not(.open)").locator("visible=true")
    for left in range(shut.count() - 1, -1, -1):
        shut.first.click()
        expect(shut).to_have_count(left)


def _type(watched: Watched, text: str) -> None:
    """Put `text` into every field in sight that takes text."""
    fields = watched.page.locator("[role=tabpanel]").locator(TAKES_TEXT).locator("visible=true")
    typed = 0
    for each in fields.element_handles():  # as they are now: what is typed may bring others
        if each.is_visible() and each.is_editable():
            each.fill(text)
            each.press("Tab")
            typed += 1
    assert typed


def _press(watched: Watched, tab: str, buttons: tuple[str, ...], text: str) -> None:
    """Press what leads to a refusal, and look at it: what was typed is in it, or a folder's name, or no key."""
    page = watched.page
    for name in buttons:
        page.get_by_role("button", name=name, exact=True).locator("visible=true").first.click()
    said = {"Export": text.rpartition("/")[2][:12], "System": "webhook must be"}.get(tab, text[:12])
    page.locator(".nb-error", has_text=said).locator("visible=true").first.wait_for()
    page.wait_for_timeout(700)  # for the other refusals
    watched.look(f"{text[:20]} typed on {tab}", seen="")


@pytest.mark.full
def test_what_would_be_alive_is_seen(browser: Browser) -> None:
    """The eyes of these tests: every payload of HTML is noticed where it is put on a page as it is."""
    context = browser.new_context()
    context.add_init_script(CANARY)
    for name, payload in HTML.items():
        if name in NO_HTML:
            continue
        page = context.new_page()  # of its own: the one before may be on its way elsewhere
        page.set_content(
            f"<div title=\"{payload}\"></div><div title='{payload}'></div>{payload}<i title={payload}></i>"
        )
        page.wait_for_timeout(20)
        try:
            seen = page.evaluate(ALIVE) or page.evaluate("window.__called")
        except PlaywrightError:  # it has led the page away
            seen = True
        assert seen, name
        page.close()
    context.close()


def test_votes_that_are_taken_away_hold_no_formula() -> None:
    names = [*HTML.values(), "=1+1", "+1", "-1", "@a", "\t=1", "\r=1", " =1", "\n=1"]
    votes = [Vote(Side(name, name), Side("other", "other"), "left") for name in names]
    rows = list(csv.reader(io.StringIO(write_table(votes))))
    assert len(rows) == 1 + len(names)
    assert not [cell for row in rows for cell in row if cell.lstrip()[:1] in ("=", "+", "-", "@")]
