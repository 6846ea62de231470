"""Every recipe that ships runs through the real command, and those of the papers hold the papers' numbers."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from core.cli import main as cli_main
from core.recipe import about_preset, load_recipe, named_in_preset, recipe_presets
from core.runs.find import find_run
from core.runs.supervisor import Supervisor
from core.workspace import Workspace
from tests.tiny import chat_rows, tiny_model, write_jsonl

SIZES = {"7b": (2e-4, 0.1), "13b": (2e-4, 0.05), "33b": (1e-4, 0.05), "65b": (1e-4, 0.05)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama that is made for as long texts as any preset wants."""
    folder = tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations, and as many plain texts."""
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", chat_rows(24))


class InThisProcess(Supervisor):
    """Runs the worker where it stands: its start alone would take most of the time."""

    def start_worker(self, run: Any) -> None:
        from core.train.loop import train

        with contextlib.redirect_stdout(sys.stderr):  # a worker's goes to its log
            run.write_status(state=train(run))


@pytest.mark.parametrize("name", sorted(recipe_presets()))
def test_every_preset_runs_through_the_command(
    name: str, model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("core.runs.supervisor.Supervisor", InThisProcess)
    monkeypatch.setattr("core.train.loop.enforce", lambda *_: "not enforced: these are the tests")
    changed = [f"model={model}", f"data.path={rows}", "train.max_steps=2", "evaluation.max_new_tokens=2"]
    changed += ["evaluation.times=1", "train.effective_batch=4", 'evaluation.prompts=["hello"]']
    settings = [part for change in changed for part in ("--set", change)]
    assert cli_main.main(["train", name, *settings, "--data-dir", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["steps"]) == ("finished", 2)
    run = find_run(Workspace.open(tmp_path), told["run"])
    kept = run.recipe()
    wanted = load_recipe(name)
    assert (kept.lora, kept.quantization, kept.data.train_on) == (
        wanted.lora,
        wanted.quantization,
        wanted.data.train_on,
    )
    adapter = json.loads((run.adapter / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (wanted.lora.rank, wanted.lora.alpha)


@pytest.mark.parametrize("size", SIZES)
def test_guanaco_is_trained_as_in_the_papers_scripts(size: str) -> None:
    """The scripts: scripts/finetune_guanaco_{7b,13b,33b,65b}.sh of artidoro/qlora."""
    recipe = load_recipe(f"guanaco-{size}")
    rate, dropout = SIZES[size]
    lora, base, train, data = recipe.lora, recipe.quantization, recipe.train, recipe.data
    assert (lora.rank, lora.alpha, lora.dropout, lora.targets) == (64, 16, dropout, "all-linear")
    assert (lora.scaling, lora.dora, lora.init, lora.extra_modules) == ("standard", False, "default", [])
    assert (base.bits, base.type, base.double) == (4, "nf4", True)
    assert (train.learning_rate, train.schedule, train.effective_batch, train.max_steps) == (rate, "constant", 16, 1875)
    assert (train.optimizer, train.beta2, train.weight_decay, train.max_grad_norm) == (
        "paged_adamw_32bit",
        0.999,
        0,
        0.3,
    )
    assert (train.gradient_checkpointing, train.seed, train.neftune_alpha) == ("on", 0, None)
    assert (data.max_length, data.train_on, data.template) == (16 + 512, "everything", "guanaco")
    assert recipe.evaluation.times == 1875 // 187


def test_the_lora_papers_preset_is_the_papers() -> None:
    recipe = load_recipe("lora-paper")
    assert (recipe.lora.targets, recipe.lora.rank, recipe.lora.alpha) == ("q_v", 8, 8)
    assert recipe.quantization.bits == 16
    assert (recipe.train.optimizer, recipe.train.weight_decay, recipe.train.schedule) == ("adamw", 0.01, "linear")


@pytest.mark.parametrize("name", sorted(recipe_presets()))
def test_every_preset_says_what_it_is_and_its_source(name: str) -> None:
    about = about_preset(name)
    assert about[0].isupper() and about.endswith(".")
    assert "Source: " in about
    assert "#" not in about


def test_a_preset_says_which_settings_are_its_own() -> None:
    assert {"model", "data.path", "lora.rank"} <= named_in_preset("guanaco-7b")
    assert not {"model", "data.path", "budget"} & named_in_preset("modern")
