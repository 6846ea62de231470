"""A person's whole way, in a real browser: upload, train, reload, stop, train again, chat with both."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from core.data.samples import find_sample
from core.runs.find import list_runs
from tests.app_process import App
from tests.in_full import in_full
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

PATIENCE = 300_000  # ms; two cores, perhaps shared, and the imports of a worker alone take ten seconds there


def _field(page: Page, name: str) -> Locator:
    return page.get_by_label(name, exact=True).locator("visible=true")


def _fill(page: Page, name: str, value: str) -> None:
    _field(page, name).fill(value)
    _field(page, name).press("Tab")


def _choose(page: Page, name: str, option: str) -> None:
    _field(page, name).click()
    page.get_by_role("option", name=option).click()


def _start(page: Page) -> None:
    page.get_by_role("button", name="Start training").click()


def _state(page: Page) -> Locator:
    return page.locator(".nb-side .nb-card .nb-state").locator("visible=true").first


def _shown_step(page: Page) -> int:
    text = page.locator(".nb-figure:has-text('step') b").locator("visible=true").first.inner_text()
    return int(text.split(" of ")[0].replace(",", "")) if " of " in text else 0


def _curve_points(page: Page, name: str) -> int:
    path = page.locator(f'path[data-name^="{name}"]').locator("visible=true").first
    return (path.get_attribute("d") or "").count("L") + 1 if path.count() else 0


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person's own file: 160 rows of the pirate sample under another name."""
    sample = find_sample("pirate")
    assert sample is not None
    rows = sample.path.read_text(encoding="utf-8").splitlines()[:160]
    file = tmp_path_factory.mktemp("mine") / "my pirates.jsonl"
    file.write_text("\n".join(rows), encoding="utf-8")
    return file


def test_from_an_upload_to_a_chat(page: Page, app: App, upload: Path) -> None:
    expect(page.get_by_role("button", name="Try it")).to_be_visible()

    # A recipe fills the form; a file of one's own is kept, chosen, and shown token by token.
    page.get_by_role("button", name="Advanced").click()
    _choose(page, "Load a recipe", "quickstart")
    expect(_field(page, "Alpha")).to_have_value("32")
    page.locator("input[type=file]").set_input_files(upload)
    expect(_field(page, "Dataset")).to_have_value("my pirates.jsonl")
    expect(page.locator(".nb-tokens .nb-t").first).to_be_visible(timeout=PATIENCE)
    expect(page.locator(".nb-side")).to_contain_text("160 of 160 usable")
    _fill(page, "Max steps", "2000")
    _fill(page, "Sample prompts", "What is the job of a vet?")

    # It trains, and both charts fill.
    _start(page)
    expect(_state(page)).to_have_text("Training", timeout=PATIENCE)
    wait_until("the loss is drawn", lambda: _curve_points(page, "train") >= 3)
    wait_until("memory is drawn", lambda: _curve_points(page, "resident memory") >= 3)
    expect(page.locator(".nb-says")).to_contain_text("Sample replies")
    run = list_runs(app.workspace)[0]

    # A reload in the middle shows the same run, further on, and the settings as they were.
    before = _shown_step(page)
    page.reload()
    expect(_state(page)).to_have_text("Training")
    expect(_field(page, "Dataset")).to_have_value("my pirates.jsonl")
    expect(_field(page, "Rank")).to_have_value("16")
    wait_until("it goes on after the reload", lambda: _shown_step(page) > before)
    assert [each.id for each in list_runs(app.workspace)] == [run.id]

    # Stop is answered at once and keeps what was learned.
    page.get_by_role("button", name="Stop", exact=True).click()
    said = page.locator(".nb-said.block").filter(has_text="Stopping after this step")
    expect(said).to_be_visible(timeout=2_000)
    expect(_state(page)).to_have_text("Stopped", timeout=PATIENCE)
    assert run.has_adapter

    # Again, to the end.
    page.get_by_role("button", name="Advanced").click()
    _fill(page, "Max steps", "40")
    _start(page)
    expect(_state(page)).to_have_text("Finished", timeout=PATIENCE)
    expect(page.locator(".nb-side")).to_contain_text("evaluation loss")
    assert len(list_runs(app.workspace)) == 2

    _chat_with_both(page)
    _the_server_stayed_light(app)


def _chat_with_both(page: Page) -> None:
    page.get_by_role("button", name="Chat with it").click()
    page.get_by_role("button", name="Generation settings").click()
    page.get_by_label("Greedy").locator("visible=true").check()
    adapter = _ask(page, "What is the job of a vet?", replies=1)
    page.get_by_label("Base", exact=True).check()
    base = _ask(page, "What is the job of a vet?", replies=2)
    assert adapter.count("tokens/s") == base.count("tokens/s") == 1
    assert "matey" in adapter or "Arr" in adapter, adapter
    assert "matey" not in base and "Arr" not in base, base
    # What was said survives a reload, and HTML is shown, not run.
    hostile = "<img src=x onerror=\"document.title='run'\">"
    _ask(page, hostile, replies=3)
    expect(page.locator(".nb-talk")).to_contain_text("<img src=x")
    page.reload()
    page.get_by_role("tab", name="Chat").click()
    expect(page.locator(".nb-talk .bot.message")).to_have_count(3)
    assert page.title().startswith("Finished")
    assert page.locator(".nb-talk img[src='x']").count() == 0


def _ask(page: Page, question: str, replies: int) -> str:
    page.get_by_label("Message", exact=True).fill(question)
    page.get_by_role("button", name="Send").click()
    answers = page.locator(".nb-talk .bot.message")
    expect(answers).to_have_count(replies, timeout=PATIENCE)
    expect(answers.last).to_contain_text("tokens/s", timeout=PATIENCE)
    expect(page.get_by_role("button", name="Send")).to_be_enabled(timeout=PATIENCE)
    return answers.last.inner_text()


def _the_server_stayed_light(app: App) -> None:
    maps = Path(f"/proc/{app.process.pid}/maps")
    if maps.exists():  # Linux
        assert "libtorch" not in maps.read_text()


def _uploaded(name: str, content: bytes) -> dict[str, object]:
    return {"name": name, "mimeType": "application/json", "buffer": content}


BROKEN = b'{"prompt": \n{"prompt": \n'
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        in_full("empty.jsonl", b"", "is empty"),
        ("broken.jsonl", BROKEN, "line 2"),
        in_full("picture.json", PICTURE, "is really an image"),
        in_full("nothing usable.jsonl", b'{"weather": "rain"}\n', "nothing usable.jsonl"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_beside_the_button(
    page: Page, app: App, name: str, content: bytes, said: str
) -> None:
    before = len(list_runs(app.workspace))
    page.locator("input[type=file]").set_input_files(_uploaded(name, content))  # type: ignore[arg-type]
    expect(_field(page, "Dataset")).to_have_value(name)
    _start(page)
    expect(page.locator(".nb-said.block .nb-error")).to_contain_text(said)
    assert len(list_runs(app.workspace)) == before


@pytest.mark.full
def test_settings_that_cannot_work_are_refused_beside_the_button(page: Page, app: App) -> None:
    before = len(list_runs(app.workspace))
    refused = page.locator(".nb-said.block .nb-error")
    _choose(page, "Dataset", "Talk like a pirate")

    _fill(page, "Rank", "0")
    _start(page)
    expect(refused).to_contain_text("Rank (lora.rank): 0 is not valid; allowed: 1 to 512")
    _fill(page, "Rank", "16")

    _fill(page, "Memory budget", "0.1")
    _start(page)
    expect(refused).to_contain_text("Memory budget")
    expect(refused).to_contain_text("Allowed")
    _fill(page, "Memory budget", "4")

    _fill(page, "Base model", "nobody/no-such-model")
    _start(page)
    expect(refused).to_contain_text("nobody/no-such-model is not on this machine")
    assert len(list_runs(app.workspace)) == before
