"""Export in a browser: a run chosen, exported, proved, downloaded and opened; brought in again, trained further."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy
import pytest
from playwright.sync_api import Page, expect
from safetensors.numpy import load_file, save_file

from core.basemodel.find import find_model
from core.recipe import make_recipe
from core.runs.create import create_run
from core.runs.manifest import write_manifest
from core.runs.store import Run
from core.workspace import write_json
from tests.app_process import App

pytestmark = pytest.mark.full
PATIENCE = 240_000  # ms; the proof loads the libraries in a process of its own


def _run(app: App) -> Run:
    """A finished run over the starter with a random adapter, and another as its best."""
    recipe = make_recipe({"name": "Pirate <b>1</b>", "lora.rank": 4})
    run = create_run(app.workspace, recipe, {"file": "x", "sha256": "", "name": "x"}, "finished")
    starter, chance = find_model("starter"), numpy.random.default_rng(0)
    assert starter.folder is not None
    weights = {}
    for each in starter.tensors:
        if each.name.endswith(("q_proj.weight", "down_proj.weight")):
            high, wide = each.shape
            name = f"base_model.model.{each.name.removesuffix('.weight')}"
            weights[f"{name}.lora_A.weight"] = chance.normal(size=(4, wide)).astype("float32") / 9
            weights[f"{name}.lora_B.weight"] = chance.normal(size=(high, 4)).astype("float32") / 9
    for folder, factor in ((run.adapter, 1), (run.dir / "best", 2)):
        folder.mkdir()
        for file in (*starter.folder.glob("tokenizer*"), starter.folder / "chat_template.jinja"):
            shutil.copy(file, folder)
        save_file({name: weight * factor for name, weight in weights.items()}, folder / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8}
        config |= {"target_modules": ["q_proj", "down_proj"], "base_model_name_or_path": starter.source}
        write_json(folder / "adapter_config.json", config)
    write_manifest(run.dir / "best", 7)
    return run


def test_a_run_goes_out_proved_and_comes_back(app: App, page: Page, tmp_path: Path) -> None:
    run = _run(app)
    page.get_by_role("tab", name="Export").click()
    expect(page.get_by_label("Run", exact=True)).to_have_value(re.compile(re.escape(run.name)))

    # Its best is chosen; the folder is named after it, and a folder that is taken is refused where one looks.
    page.get_by_label("Checkpoint", exact=True).click()
    page.get_by_role("option", name="Best, step 7").click()
    folder = page.get_by_label("Folder", exact=True)
    expect(folder).to_have_value(str(app.workspace.exports / "Pirate-b-1-b-best-adapter"))
    taken = app.workspace.exports / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    proposed = folder.input_value()
    folder.fill(str(taken))
    page.get_by_role("button", name="Export", exact=True).click()
    expect(page.get_by_text("is not empty. Choose another")).to_be_visible()
    folder.fill(proposed)
    folder.press("Tab")

    # It is watched to its proof, and found again by a page that is opened anew.
    page.get_by_role("button", name="Export", exact=True).click()
    expect(page.get_by_text("Verifying the export")).to_be_visible(timeout=PATIENCE)
    expect(page.locator(".nb-exported")).to_contain_text("replies equal", timeout=PATIENCE)
    page.reload()
    page.get_by_role("tab", name="Export").click()
    card = page.locator(".nb-exported")
    expect(card).to_contain_text("Verified")
    expect(card).to_contain_text("PeftModel.from_pretrained")

    # What is downloaded is the adapter that was chosen.
    with page.expect_download() as coming:
        card.get_by_role("link", name="Download").click()
    zipped = tmp_path / "it.zip"
    coming.value.save_as(zipped)
    with zipfile.ZipFile(zipped) as packed:
        packed.extractall(tmp_path)
    inside = tmp_path / "Pirate-b-1-b-best-adapter"
    ours, theirs = (load_file(each / "adapter_model.safetensors") for each in (run.dir / "best", inside))
    assert ours.keys() == theirs.keys() and all(numpy.array_equal(ours[name], theirs[name]) for name in ours)
    assert json.loads((inside / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"] == "starter"
    assert "replies equal" in (inside / "README.md").read_text("utf-8")

    # The same zip is brought in again, and goes on being trained with the settings that it has.
    page.get_by_role("button", name="Import an adapter").click()
    page.locator("input[type=file][accept*='.tgz']").set_input_files(zipped)
    page.get_by_label("Adapter name", exact=True).fill("back again")
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("“back-again” is imported")).to_be_visible()
    page.get_by_role("button", name="Continue training").click()
    expect(page.get_by_role("tab", name="Train", selected=True)).to_be_visible()
    expect(page.get_by_text("“back-again” is trained further as it is: rank 4, alpha 8")).to_be_visible()
    expect(page.get_by_label("Rank", exact=True)).to_have_value("4")
    page.get_by_role("button", name="Advanced").click()
    expect(page.get_by_label("Start from", exact=True)).to_have_value("back-again")
