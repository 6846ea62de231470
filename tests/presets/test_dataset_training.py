"""Each sample dataset teaches the starter what it says, through the real command. Minutes: `test --full`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from core.model.load import load_adapter
from presets.datasets.checks import HELD_OUT
from presets.starter.measure import load, replies

ROOT = Path(__file__).parents[2]
RECIPES = {
    data["path"]: path.stem
    for path in sorted((ROOT / "presets/recipes").glob("*.yaml"))
    for data in [yaml.safe_load(path.read_text())["data"]]
    if data.get("path") in HELD_OUT
}


def test_every_sample_has_a_recipe():
    assert set(RECIPES) == set(HELD_OUT)


@pytest.mark.full
@pytest.mark.parametrize("sample", sorted(RECIPES))
def test_an_adapter_learns_the_sample_and_the_base_does_not_know_it(sample, tmp_path):
    command = [sys.executable, "-m", "core.cli", "train", RECIPES[sample], "--data-dir", str(tmp_path), "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=600, check=True)
    run = Path(json.loads(done.stdout)["dir"])
    held_out = HELD_OUT[sample](60)
    base, tokenizer = load(ROOT / "presets/starter/model")

    before = [e.right(reply) for e, reply in zip(held_out, replies(base, tokenizer, held_out), strict=True)]
    adapted = load_adapter(base, run / "adapter").eval()
    after = [e.right(reply) for e, reply in zip(held_out, replies(adapted, tokenizer, held_out), strict=True)]

    assert sum(before) <= 0.1 * len(held_out)
    assert sum(after) >= 0.9 * len(held_out)
