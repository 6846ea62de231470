"""The Runs tab in a real browser, on runs that are files alone: found, sorted, opened, renamed, compared, deleted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from core.runs.find import list_runs
from core.runs.store import Run
from core.workspace import Workspace
from tests.app_process import App, end, serve
from tests.ended import ended_run

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=\"document.title='run'\"> & more"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app with more runs than a page holds, one of them with a name that would like to be HTML."""
    folder = tmp_path_factory.mktemp("workspace")
    workspace = Workspace.open(folder)
    for rank in (8, 16, 64):
        ended_run(workspace, f"Pirate, rank {rank}", **{"lora.rank": rank})
    ended_run(workspace, HOSTILE, state="failed", steps=9)
    for number in range(20):
        ended_run(workspace, f"Other {number:02}", steps=5, **{"train.seed": number})
    running = serve(folder)
    yield running
    end(running)


def _names(page: Page) -> list[str]:
    return page.locator(".nb-runs .nb-link").all_inner_texts()


def _row(page: Page, name: str) -> Locator:
    return page.locator(".nb-runs tr[data-run]").filter(has_text=name)


def _named(app: App, name: str) -> Run:
    return next(run for run in list_runs(app.workspace) if run.name == name)


def test_runs_are_found_opened_renamed_compared_and_deleted(page: Page, app: App) -> None:
    page.get_by_role("tab", name="Runs").click()
    foot = page.locator(".nb-foot")
    expect(foot).to_contain_text("1–20 of 24 runs")
    foot.get_by_role("button", name="Next").click()
    expect(foot).to_contain_text("21–24 of 24 runs")

    _only_what_changed_is_drawn(page, app)
    _find_and_sort(page, foot)
    _compare(page)
    _rename(page, app)
    _delete(page, app, foot)

    page.get_by_label("Search").fill("no such run")
    expect(page.locator(".nb-empty").locator("visible=true")).to_contain_text("No matching runs")
    for width in (1280, 900):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not page.title().startswith("run")


def _only_what_changed_is_drawn(page: Page, app: App) -> None:
    """A label that changes in a file comes into its row; whoever has the focus keeps it."""
    run = _named(app, _names(page)[0])
    head = page.locator(".nb-runs").get_by_role("button", name="Evaluation")
    head.focus()
    page.evaluate("document.querySelector('.nb-runs table').dataset.witness = 'same'")
    run.write_labels(run.name, "", ["tagged"])
    expect(_row(page, run.name).locator(".nb-w-name small")).to_have_text("tagged")
    expect(head).to_be_focused()
    expect(page.locator(".nb-runs table")).to_have_attribute("data-witness", "same")


def _find_and_sort(page: Page, foot: Locator) -> None:
    page.get_by_label("Search").fill("pirate, RANK")
    expect(foot).to_contain_text("1–3 of 3 runs, of 24 in all")
    page.locator(".nb-runs").get_by_role("button", name="Evaluation").click()
    expect(page.locator("th[aria-sort=ascending]")).to_contain_text("Evaluation")
    assert _names(page) == ["Pirate, rank 64", "Pirate, rank 16", "Pirate, rank 8"]
    expect(_row(page, "Pirate, rank 64")).to_contain_text("★")
    page.locator(".nb-runs").get_by_role("button", name="Evaluation").press("Enter")
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("Evaluation")
    assert _names(page) == ["Pirate, rank 8", "Pirate, rank 16", "Pirate, rank 64"]


def _compare(page: Page) -> None:
    for rank in (8, 64):
        _row(page, f"Pirate, rank {rank}").get_by_role("checkbox").click()
    page.get_by_role("button", name="Compare 2 runs").click()
    compared = page.locator(".nb-comparison")
    expect(compared.locator("path[data-name='Pirate, rank 8']")).to_be_visible()
    expect(compared.locator("tr").filter(has_text="Rank").locator("td")).to_have_text(["8", "64"])
    compared.get_by_label("Tokens").check()
    expect(compared.locator("svg[data-kind=tokens]")).to_be_visible()
    compared.get_by_role("button", name="Close").click()
    expect(compared).to_be_hidden()
    expect(_row(page, "Pirate, rank 8").get_by_role("checkbox")).to_be_checked()


def _rename(page: Page, app: App) -> None:
    page.get_by_label("Search").fill("onerror")
    page.locator(".nb-link").get_by_text(HOSTILE, exact=True).click()
    opened = page.locator(".nb-opened")
    expect(opened.locator("h3")).to_have_text(HOSTILE)
    expect(opened).to_be_in_viewport()
    expect(opened.locator(".nb-says")).to_contain_text("Ahoy, matey!")
    opened.get_by_role("button", name="Name, tags and note").click()
    opened.get_by_label("Name", exact=True).fill("Tame")
    opened.get_by_label("Note", exact=True).fill("Renamed in the browser")
    opened.get_by_role("button", name="Save").click()
    expect(opened.locator(".nb-noted")).to_have_text("Renamed in the browser")
    page.get_by_label("Search").fill("tame")
    expect(_row(page, "Tame")).to_have_count(1)
    assert _named(app, "Tame").labels()["note"] == "Renamed in the browser"


def _delete(page: Page, app: App, foot: Locator) -> None:
    run = _named(app, "Tame")
    opened = page.locator(".nb-opened")
    opened.get_by_role("button", name="Delete…").click()
    expect(opened.locator(".nb-sure")).to_contain_text("Delete “Tame” for good? This frees")
    opened.get_by_role("button", name="Cancel").click()
    expect(opened.locator(".nb-sure")).to_be_hidden()
    opened.get_by_role("button", name="Delete…").click()
    opened.get_by_role("button", name="Delete", exact=True).click()
    expect(opened).to_be_hidden()
    assert not run.dir.exists()
    page.get_by_label("Search").fill("")
    expect(foot).to_contain_text("of 23 runs")
