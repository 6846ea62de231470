"""Ten blind votes in a real browser: the names come after each, and the leaderboard follows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from core.arena.answers import AnswerBook
from core.arena.batch_answers import Bulk
from core.arena.prompts import shipped
from core.arena.votes import VoteBook
from core.generation.sampling import Sampling
from core.workspace import ROOT, Workspace
from tests.app_process import App, end, serve
from tests.core.arena.speaking import Speaker, voice

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=\"document.title='run'\">"
PIRATE, BASE = "run:pirate", "base:starter"
VOTES = 10
PATIENCE = 300_000  # ms; two cores, perhaps shared, and the imports of each process take ten seconds there


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app whose workspace holds answers that were prepared before."""
    folder = tmp_path_factory.mktemp("workspace")
    voices = [voice(PIRATE, f"Pirate {HOSTILE}"), voice(BASE, "Starter (base)")]
    book = AnswerBook(Workspace.open(folder))
    Bulk(book, Speaker(), voices, shipped()[:VOTES], Sampling(seed=0)).run()
    running = serve(folder)
    yield running
    end(running)


def _open_arena(page: Page) -> None:
    page.get_by_role("tab", name="Arena").click()
    expect(page.get_by_text("No votes yet")).to_be_visible()
    page.get_by_label("Prompts", exact=True).click()
    page.get_by_role("option", name="Prepared replies").click()


def _vote_for(page: Page, wanted: str, by_key: bool) -> None:
    """Wait for a match, see that it is blind, and vote for the side that says `wanted`."""
    left, duel = page.locator("#nb-vote-left"), page.locator(".nb-duel")
    expect(left).to_be_enabled()
    expect(duel).to_contain_text("Left")
    expect(duel).not_to_contain_text("Starter (base)")
    is_left = wanted in page.locator(".nb-reply").first.inner_text()
    if by_key:
        page.keyboard.press("1" if is_left else "2")
    else:
        page.locator("#nb-vote-left" if is_left else "#nb-vote-right").click()
    expect(duel).to_contain_text("Starter (base)")
    expect(duel).to_contain_text("your vote")
    expect(left).to_be_disabled()


def test_ten_blind_votes_and_the_leaderboard_changes(page: Page, app: App, tmp_path: Path) -> None:
    _open_arena(page)
    page.get_by_role("button", name="Next pair").click()
    for number in range(VOTES):
        _vote_for(page, PIRATE, by_key=number % 2 == 1)
        if number == 0:
            expect(page.locator(f'tr[data-model="{PIRATE}"]')).to_contain_text("1016")
        if number < VOTES - 1:
            page.get_by_role("button", name="Next pair").click()
    best = page.locator("tr[data-model]").first
    expect(best).to_contain_text(str(VOTES))
    expect(best).to_have_attribute("data-model", PIRATE)
    expect(page.locator(".nb-board")).to_contain_text("has no upper bound yet")

    # Every pair is voted on; nothing of the answers was run; the votes are there.
    page.get_by_role("button", name="Next pair").click()
    expect(page.locator(".nb-arena .nb-error")).to_contain_text("no prepared replies left to vote on")
    assert page.title() == "Nibble"
    votes = VoteBook(app.workspace).refresh()
    assert [vote.judge for vote in votes] == ["person"] * VOTES
    assert {vote.game.model_a for vote in votes} <= {PIRATE, BASE}

    # Out as CSV, and another file in.
    page.get_by_role("button", name="Import and export votes").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export votes", exact=True).click()
    assert len(download.value.path().read_text(encoding="utf-8").splitlines()) == VOTES + 1
    file = tmp_path / "more.csv"
    file.write_text(f"model_a,model_b,winner\n{BASE},{PIRATE},model_a\n{BASE},{PIRATE},perhaps\n", encoding="utf-8")
    page.locator(".nb-arena input[type=file]").set_input_files(file)
    expect(page.locator(".nb-arena")).to_contain_text("1 votes read, 1 rows skipped.")
    expect(best).to_contain_text(str(VOTES + 1))
    expect(page.locator(".nb-board")).not_to_contain_text("has no upper bound yet")

    page.reload()
    page.get_by_role("tab", name="Arena").click()
    expect(best).to_have_attribute("data-model", PIRATE)
    expect(page.get_by_role("button", name="Next pair")).to_be_visible()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app whose workspace has a run over the starter."""
    folder = tmp_path_factory.mktemp("trained")
    steps = ["--set", "train.max_steps=4", "--name", "Pirate"]
    command = [sys.executable, "-m", "core.cli", "train", "quickstart", *steps, "--data-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    running = serve(folder)
    yield running
    end(running)


@pytest.mark.full
def test_a_run_meets_its_base_and_answers_are_prepared(browser: Browser, trained: App) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(trained.url)
    page.get_by_role("tab", name="Arena").click()
    page.get_by_label("Prompts", exact=True).click()
    page.get_by_role("option", name="Validation split of Pirate").click()
    page.get_by_role("button", name="Next prompt").click()
    expect(page.locator("#nb-vote-tie")).to_be_enabled(timeout=PATIENCE)
    expect(page.locator(".nb-duel")).not_to_contain_text("starter (base model)")
    page.locator("#nb-vote-tie").click()
    expect(page.locator(".nb-duel")).to_contain_text("starter (base model)")
    expect(page.locator(".nb-duel")).to_contain_text("Pirate")
    expect(page.locator("tr[data-model]")).to_have_count(2)

    # Answers in advance: stopped, gone on with, voted on.
    page.get_by_role("button", name="Prepare replies and vote later").click()
    page.get_by_label("Prompt set", exact=True).click()
    page.get_by_role("option", name="Small talk").click()
    page.get_by_role("button", name="Prepare replies", exact=True).click()
    expect(page.locator(".nb-arena")).to_contain_text("of 16 replies are ready", timeout=PATIENCE)
    page.get_by_role("button", name="Stop preparing").click()
    expect(page.get_by_role("button", name="Stop preparing")).to_be_hidden(timeout=PATIENCE)
    page.get_by_role("button", name="Prepare replies", exact=True).click()
    expect(page.locator(".nb-arena")).to_contain_text("16 of 16 replies are ready. Done.", timeout=PATIENCE)
    page.get_by_label("Prompts", exact=True).click()
    page.get_by_role("option", name="Prepared replies").click()
    expect(page.locator(".nb-arena")).to_contain_text("8 prepared pairs wait for your vote")
    page.get_by_role("button", name="Next pair").click()
    expect(page.locator("#nb-vote-left")).to_be_enabled()
    context.close()
