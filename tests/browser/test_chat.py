"""Chat in a real browser: a reply, stop, regenerate, edit, undo, several side by side, the conversation as data."""

from __future__ import annotations

import re
import shutil

import numpy
import pytest
from playwright.sync_api import Locator, Page, expect
from safetensors.numpy import save_file

from core.basemodel.find import find_model
from core.recipe import Recipe
from core.runs.create import create_run
from core.workspace import read_json, write_json
from tests.app_process import App
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

PATIENCE = 300_000  # ms; the imports of the chat's process alone take ten seconds on two cores, and longer shared


def _babbler(app: App) -> None:
    """A run whose adapter over the starter never comes to an end: there is time to press Stop."""
    run = create_run(app.workspace, Recipe(name="Babbler"), {"file": "x", "sha256": "", "name": "x"}, "finished")
    starter, chance = find_model("starter"), numpy.random.default_rng(0)
    assert starter.folder is not None
    run.adapter.mkdir()
    for file in (*starter.folder.glob("tokenizer*"), starter.folder / "chat_template.jinja"):
        shutil.copy(file, run.adapter)
    weights = {}
    for each in starter.tensors:
        if each.name.endswith("down_proj.weight"):
            high, wide = each.shape
            name = f"base_model.model.{each.name.removesuffix('.weight')}"
            weights[f"{name}.lora_A.weight"] = chance.normal(size=(4, wide)).astype("float32")
            weights[f"{name}.lora_B.weight"] = chance.normal(size=(high, 4)).astype("float32")
    save_file(weights, run.adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 4, "target_modules": ["down_proj"]}
    write_json(run.adapter / "adapter_config.json", {**config, "base_model_name_or_path": starter.source})


@pytest.fixture(scope="module")
def app(app: App) -> App:
    """The app with the babbler on its workspace."""
    _babbler(app)
    return app


def _talk(app: App) -> list[dict[str, str]]:
    """The conversation as the app keeps it."""
    return read_json(app.workspace.state / "talk.json") or []


def _again(page: Page, app: App, press: Locator) -> dict[str, str]:
    """Press, wait for the conversation to be another, and return its last turn."""
    file = app.workspace.state / "talk.json"
    before = file.stat().st_mtime_ns
    press.click()
    wait_until("a new reply", lambda: file.stat().st_mtime_ns != before and _talk(app)[-1]["role"] == "assistant")
    expect(page.get_by_role("button", name="Send")).to_be_enabled(timeout=PATIENCE)
    return _talk(app)[-1]


def _settings(page: Page, length: int) -> None:
    page.get_by_role("button", name="Generation settings").click()
    page.get_by_label("Seed", exact=True).locator("visible=true").fill("1")
    limit = page.get_by_label("Max new tokens", exact=True).locator("visible=true")
    limit.fill(str(length))
    limit.press("Tab")


def test_a_conversation_from_the_first_word_to_the_data_tab(page: Page, app: App) -> None:
    page.get_by_role("tab", name="Chat").click()
    _settings(page, 900)

    # An empty message and one that works; a stop that is obeyed in mid-reply.
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("The message is empty")).to_be_visible()
    page.get_by_label("Message", exact=True).fill("Hello <b>there</b>")
    page.get_by_label("Message", exact=True).press("Enter")
    expect(page.locator(".nb-talk .bot.message").last).to_contain_text("tokens/s", timeout=PATIENCE)
    page.get_by_role("button", name="Stop", exact=True).locator("visible=true").click()
    wait_until("it has stopped", lambda: any("stopped" in turn["note"] for turn in _talk(app)))
    assert _talk(app)[-1]["note"].startswith("Babbler · ")
    reply, message = page.locator(".nb-talk .bot.message"), page.locator(".nb-talk .user.message")
    expect(message).to_contain_text("Hello <b>there</b>")
    expect(page.locator(".nb-context")).to_contain_text("of 1,024 tokens")

    # Regenerate asks the same once more, with the same seed for the same answer; an edited message is answered anew.
    page.get_by_label("Base", exact=True).check()
    regenerate = page.get_by_role("button", name="Regenerate")
    first, second = _again(page, app, regenerate), _again(page, app, regenerate)
    assert first["content"] == second["content"] and first["note"].startswith("base · ")
    page.locator(".nb-talk").get_by_label("Edit").click()
    page.locator(".nb-talk textarea").fill("What is the job of a vet?")
    edited = _again(page, app, page.locator(".nb-talk").get_by_label("Submit"))
    assert [turn["role"] for turn in _talk(app)] == ["user", "assistant"]
    assert edited["content"] != first["content"]
    expect(message).to_contain_text("job of a vet")

    # It survives a reload, goes into the Data tab in one click, and can be taken back.
    page.reload()
    page.get_by_role("tab", name="Chat").click()
    expect(reply).to_contain_text(edited["content"][:20])
    page.get_by_role("button", name="Use as dataset").click()
    expect(page.get_by_role("tab", name="Data", selected=True)).to_be_visible()
    dataset = page.get_by_label("Dataset", exact=True).locator("visible=true")
    expect(dataset).to_have_value(re.compile(r"chat .*\.jsonl"))
    kept = list(app.workspace.datasets.glob("*/chat *.jsonl"))
    assert len(kept) == 1 and "job of a vet" in kept[0].read_text("utf-8")
    page.get_by_role("tab", name="Chat").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_label("Message", exact=True)).to_have_value("What is the job of a vet?")
    expect(reply).to_have_count(0)


@pytest.mark.full
def test_the_same_question_to_two_side_by_side(page: Page, app: App) -> None:
    page.get_by_role("tab", name="Chat").click()
    _settings(page, 24)
    page.get_by_role("tab", name="Side by side").click()
    expect(page.locator(".token").locator("visible=true")).to_have_count(2)  # who answers, as the page is filled
    page.get_by_label("Prompt", exact=True).locator("visible=true").fill("What is the job of a vet?")
    page.locator("#nb-ask-all").click()
    columns = page.locator(".nb-side-column").locator("visible=true")
    expect(columns).to_have_count(2)
    for column, name in ((columns.nth(0), "Babbler"), (columns.nth(1), "Starter")):
        expect(column).to_contain_text(name)
        expect(column).to_contain_text("tokens/s", timeout=PATIENCE)
    expect(page.locator(".nb-compared")).to_contain_text("adapter")
    expect(page.locator("#nb-ask-all")).to_be_enabled(timeout=PATIENCE)
