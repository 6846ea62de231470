"""The Data tab in a real browser: a file in, what is found in it, its rows, and what is taken away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from core.workspace import read_json
from tests.app_process import App

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>${document.title='run'}"
PATIENCE = 60_000  # ms; the helper's imports alone take ten seconds on two cores


def _row(question: str, reply: str) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]}


def _rows() -> list[dict[str, Any]]:
    """30 rows: 5 and 6 are the same, 8 has an empty reply, 10 is hostile, 12 is long."""
    rows = [_row(f"What is {number} and {number}?", f"It is {2 * number}.") for number in range(1, 31)]
    rows[5] = rows[4]
    rows[7] = _row("And this?", "")
    rows[9] = _row(HOSTILE, HOSTILE)
    rows[11] = _row("Count.", " ".join(str(number) for number in range(400)))
    return rows


def _file(name: str, rows: list[dict[str, Any]]) -> FilePayload:
    text = "\n".join(json.dumps(row) for row in rows)
    return {"name": name, "mimeType": "application/jsonl", "buffer": text.encode()}


@pytest.fixture
def data(page: Page) -> Page:
    """The page with the Data tab open."""
    page.get_by_role("tab", name="Data", exact=True).click()
    expect(page.locator(".nb-data")).to_be_visible()
    return page


def _upload(page: Page, *files: FilePayload) -> None:
    page.locator(".nb-data input[type=file]").set_input_files(list(files))


def _finding(page: Page, said: str) -> Locator:
    return page.locator("details.nb-finding").filter(has_text=said)


def test_from_a_file_to_its_findings_its_rows_and_the_train_form(data: Page, app: App, tmp_path: Path) -> None:
    _upload(data, _file("talks.jsonl", _rows()))
    evidence = data.locator(".nb-evidence").first
    expect(evidence).to_contain_text("conversations holds from/value turns", timeout=PATIENCE)
    expect(evidence).to_contain_text("ShareGPT")
    expect(data.locator(".nb-data .nb-figures").first).to_contain_text("29 of 30", timeout=PATIENCE)

    # A finding leads to its rows, a row to what the model sees of it.
    finding = _finding(data, "copy")
    finding.locator("summary").click()
    finding.get_by_role("button", name="row 6", exact=True).click()
    expect(data.locator(".nb-row h3")).to_have_text("Row 6 of 30")
    expect(data.locator(".nb-row .nb-said-assistant")).to_contain_text("It is 10.")
    trained = data.locator(".nb-row .nb-tokens .nb-t")
    assert "".join(trained.all_inner_texts()).startswith("It is 10.")
    trained.first.hover()
    expect(data.locator(".nb-tip.nb-on")).to_contain_text("trained on")

    # What is left out says why.
    _finding(data, "empty").locator("summary").click()
    _finding(data, "empty").get_by_role("button", name="row 8", exact=True).click()
    expect(data.locator(".nb-row .nb-error")).to_contain_text("empty")
    expect(data.locator(".nb-row .nb-raw")).to_contain_text("And this?")

    # The suggestion is set in the form of the Train tab too.
    suggested = data.get_by_role("button", name="Use ").first
    limit = suggested.inner_text().removeprefix("Use ").replace(",", "")
    suggested.click()
    expect(data.get_by_text(f"{int(limit):,} is set")).to_be_visible(timeout=PATIENCE)
    expect(data.locator(".nb-data-head .nb-work")).to_have_count(0, timeout=PATIENCE)
    kept = read_json(app.workspace.state / "form.json")
    assert str(kept["data.max_length"]) == limit

    # The cleaned data has every row that can be used, as messages.
    with data.expect_download() as download:
        data.get_by_role("button", name="Cleaned data").click()
    assert download.value.suggested_filename == "talks cleaned.jsonl"
    download.value.save_as(tmp_path / "cleaned.jsonl")
    cleaned = [json.loads(line) for line in (tmp_path / "cleaned.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(cleaned) == 29
    assert cleaned[0]["messages"][1] == {"role": "assistant", "content": "It is 2."}

    data.get_by_role("button", name="Train on this").click()
    expect(data.get_by_label("Dataset", exact=True).locator("visible=true")).to_have_value("talks.jsonl")


def test_what_stands_in_the_data_is_shown_and_never_run(data: Page) -> None:
    _upload(data, _file("hostile.jsonl", [_row(HOSTILE, HOSTILE), *_rows()[:3], {HOSTILE: HOSTILE}]))
    expect(data.locator(".nb-row .nb-said-user")).to_contain_text("<img src=x onerror", timeout=PATIENCE)
    expect(data.locator(".nb-row .nb-tokens")).to_contain_text("<script>")
    data.get_by_label("Row", exact=True).locator("visible=true").fill("5")
    expect(data.locator(".nb-row .nb-raw")).to_contain_text("<script>")
    data.get_by_role("button", name="Map columns").first.click()
    expect(data.locator(".nb-mapping").first).to_be_visible()
    assert data.title() == "Nibble"
    assert data.locator("img[src='x']").count() == 0


@pytest.mark.full
def test_a_file_of_no_known_layout_is_described_by_hand(data: Page, app: App) -> None:
    strange = [{"frage": f"Wie heißt {number}?", "antwort": f"Müller {number}"} for number in range(20)]
    _upload(data, _file("strange.jsonl", strange))
    error = data.locator(".nb-data-head.block .nb-error")
    expect(error).to_contain_text("its layout is not recognised", timeout=PATIENCE)
    data.get_by_role("button", name="Map columns").first.click()
    expect(data.locator(".nb-mapped.block")).to_contain_text("Müller")  # the row as it stands in the file
    for label, column in (("Prompt", "frage"), ("Reply", "antwort")):
        data.get_by_label(label, exact=True).locator("visible=true").click()
        data.get_by_role("option", name=column, exact=True).click()
        expect(data.get_by_role("option")).to_have_count(0)  # a menu fades: the next would be there beside it
    expect(data.locator(".nb-mapped.block .nb-said-assistant")).to_contain_text("Müller", timeout=PATIENCE)
    expect(data.locator(".nb-data .nb-figures").first).to_contain_text("20 of 20", timeout=PATIENCE)
    assert read_json(app.workspace.state / "form.json")["data.mapping"]["reply"] == "antwort"


@pytest.mark.full
def test_a_press_is_answered_at_once_and_nothing_is_wider_than_the_screen(data: Page) -> None:
    data.get_by_label("Dataset", exact=True).locator("visible=true").click()
    data.get_by_role("option", name="The toy shop").click()
    expect(data.locator(".nb-data .nb-card h3").first).to_have_text("toyshop.json", timeout=PATIENCE)
    expect(data.locator(".nb-lengths svg")).to_be_visible(timeout=PATIENCE)
    for width in (1280, 390):
        data.set_viewport_size({"width": width, "height": 900})
        assert data.evaluate("document.documentElement.scrollWidth") <= width
