"""An adapter is trained further as it is: what is taken over, what is refused, and that it begins where it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

import core.train.loop as loop
from core.basemodel.find import find_model
from core.errors import ModelError, NibbleError, RecipeError
from core.export.import_adapter import import_adapter
from core.launch.start_from import find_starting_adapter, take_over
from core.launch.submit import submit
from core.recipe import make_recipe
from core.runs.resume import resume
from core.runs.store import Run
from core.runs.tail import Tail
from core.train.watcher import Watcher
from core.workspace import Workspace, write_json
from tests.core.queue_only import QueueOnly

TAKEN = ("q_proj", "v_proj")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty one."""
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch, unlimited_afterwards: None) -> None:
    """Also where there is a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def _brought(workspace: Workspace, base: Path, weights: dict[str, Any] | None = None, **config: Any) -> str:
    """An adapter as another tool leaves it, in the workspace; its key."""
    folder = workspace.adapters / "theirs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    values = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 6, "lora_alpha": 24, **config}
    write_json(folder / "adapter_config.json", values)
    made = {}
    for shape in find_model(str(base)).tensors:
        module = shape.name.removesuffix(".weight")
        if module.endswith(TAKEN):
            made[f"base_model.model.{module}.lora_A.weight"] = np.ones((6, shape.shape[1]), np.float32)
            made[f"base_model.model.{module}.lora_B.weight"] = np.ones((shape.shape[0], 6), np.float32)
    save_file({**made, **(weights or {})}, folder / "adapter_model.safetensors")
    return "adapter:theirs"


def test_what_a_recipe_leaves_open_is_taken_from_the_adapter(tiny: Path, workspace: Workspace) -> None:
    key = _brought(workspace, tiny, use_rslora=True)
    recipe, start = take_over(make_recipe({"lora.start_from": key}), workspace)
    lora = recipe.lora
    assert (recipe.model, lora.rank, lora.alpha, lora.scaling, lora.dora) == (
        str(tiny),
        6,
        24,
        "rank_stabilised",
        False,
    )
    assert lora.targets == list(TAKEN) and lora.extra_modules == []
    assert start is not None and start.summary() == "rank 6, alpha 24, on q_proj, v_proj, rsLoRA"
    again, _ = take_over(make_recipe(recipe.model_dump()), workspace)
    assert again == recipe, "what has been taken over agrees with the adapter"
    assert take_over(make_recipe({"lora.targets": "q_v", "lora.start_from": key}), workspace)[0].lora.targets == "q_v"
    fresh = make_recipe({})
    assert take_over(fresh, workspace) == (fresh, None)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"lora.rank": 8},
            r"lora.rank: 8 is not possible: the adapter theirs has 6, and its training continues with it",
        ),
        ({"lora.alpha": 16}, "lora.alpha: 16 is not possible: the adapter theirs has 24"),
        ({"lora.dora": True}, "lora.dora: True is not possible: the adapter theirs has False"),
        ({"lora.scaling": "rank_stabilised"}, "lora.scaling: rank_stabilised"),
        ({"lora.targets": "all-linear"}, "lora.targets: all-linear is not possible: the adapter theirs has q_proj, v_"),
        ({"lora.extra_modules": ["head"]}, "lora.extra_modules: head is not possible: the adapter theirs has none"),
        ({"model": "starter"}, "model: 'starter' is not possible: the adapter theirs was trained on"),
        ({"lora.init": "pissa"}, "lora.init pissa applies to a new adapter"),
        ({"lora.start_from": "adapter:../theirs"}, "allowed: adapter:<name of an imported adapter>"),
        ({"lora.start_from": "base:starter"}, "allowed: adapter:"),
        ({"lora.start_from": "run:nowhere"}, "There are no runs yet"),
    ],
)
def test_what_contradicts_the_adapter_is_refused(
    settings: dict[str, Any], said: str, tiny: Path, workspace: Workspace
) -> None:
    key = _brought(workspace, tiny)
    with pytest.raises(NibbleError, match=said):
        take_over(make_recipe({"lora.start_from": key, **settings}), workspace)


@pytest.mark.parametrize(
    ("config", "weights", "said"),
    [
        ({"rank_pattern": {"q_proj": 2}}, {}, "has rank_pattern, which is not supported for imported adapters"),
        ({"init_lora_weights": "pissa_niter_4"}, {}, "changes its base model"),
        ({"bias": "all"}, {}, "is not plain LoRA"),
        ({"r": "6"}, {}, "is damaged: its adapter_config.json"),
        ({"modules_to_save": 5}, {}, "is damaged: its adapter_config.json"),
        ({}, {"base_model.model.x.lora_A.weight": np.ones((2, 2), np.float32)}, "has layers of different ranks"),
        ({}, {"base_model.model.e.lora_embedding_A": np.ones((2, 2), np.float32)}, "has an adapter on the embeddings"),
    ],
)
def test_an_adapter_that_no_run_can_have_is_refused(
    config: dict[str, Any], weights: dict[str, Any], said: str, tiny: Path, workspace: Workspace
) -> None:
    with pytest.raises(RecipeError, match=said):
        find_starting_adapter(_brought(workspace, tiny, weights, **config), workspace)


def _fresh(tiny: Path, rows_file: Path, workspace: Workspace, **settings: Any) -> Run:
    values = {
        "model": str(tiny),
        "data.path": str(rows_file),
        "train.effective_batch": 4,
        "train.learning_rate": 0.01,
        "train.max_steps": 4,
        "evaluation.times": 1,
        "checkpoint.every_steps": 2,
    }
    return submit(make_recipe({**values, **settings}), workspace, QueueOnly(workspace))


def _losses(run: Run) -> list[float]:
    return [row["eval_loss"] for row in Tail(run.dir / "metrics.jsonl").read() if "eval_loss" in row]


def _finish(run: Run) -> Run:
    assert loop.train(run) == "finished"
    run.write_status(state="finished")
    return run


@pytest.mark.parametrize(
    "settings",
    [
        {"lora.rank": 4},
        pytest.param({"lora.dora": True, "lora.targets": "attention"}, marks=pytest.mark.full),
        pytest.param({"lora.scaling": "rank_stabilised", "quantization.bits": 8}, marks=pytest.mark.full),
        pytest.param({"lora.extra_modules": ["embeddings", "norm"], "quantization.bits": 16}, marks=pytest.mark.full),
        pytest.param({"lora.init": "pissa", "quantization.type": "fp4"}, marks=pytest.mark.full),
    ],
    ids=["nf4", "dora", "8 bits", "16 bits", "pissa"],
)
def test_the_first_loss_is_the_very_one_that_the_adapter_ended_with(
    settings: dict[str, Any], tiny: Path, rows_file: Path, workspace: Workspace
) -> None:
    first = _finish(_fresh(tiny, rows_file, workspace, **settings))
    further = _finish(_fresh(tiny, rows_file, workspace, **{"lora.start_from": f"run:{first.id}"}))
    assert _losses(further)[0] == _losses(first)[-1] != _losses(further)[-1]
    was, now = (load_file(run.adapter / "adapter_model.safetensors") for run in (first, further))
    assert was.keys() == now.keys() and any(not torch.equal(was[name], now[name]) for name in was)
    configs = [json.loads((run.adapter / "adapter_config.json").read_text("utf-8")) for run in (first, further)]
    for key in ("r", "lora_alpha", "use_dora", "use_rslora", "target_parameters"):
        assert configs[0][key] == configs[1][key], key


@pytest.mark.full
def test_one_that_was_brought_in_goes_on_and_the_run_is_whole_without_it(
    tiny: Path, rows_file: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in mid-way and resumed when the adapter is long gone, it ends as if nothing had been."""
    first = _finish(_fresh(tiny, rows_file, workspace, **{"lora.rank": 4}))
    import_adapter(workspace, first.adapter, "mine")
    wanted = {"lora.start_from": "adapter:mine", "lora.dropout": 0.2}
    runs = [_fresh(tiny, rows_file, workspace, **wanted) for _ in range(2)]
    shutil.rmtree(workspace.adapters / "mine")
    write = Watcher.write_step

    def and_stop(self: Watcher, at: int, logs: dict[str, float]) -> None:
        write(self, at, logs)
        if at == 2:
            self.run.request("stop")

    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "write_step", and_stop)
        assert loop.train(runs[0]) == "stopped"
    runs[0].write_status(state="stopped")
    shutil.rmtree(runs[0].start)
    resume(runs[0], QueueOnly(workspace))
    for run in runs:
        _finish(run)
        assert _losses(run)[0] == _losses(first)[-1]
    ours, theirs = (load_file(run.adapter / "adapter_model.safetensors") for run in runs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_plan_traces_the_adapter_that_is_trained(tiny: Path, rows_file: Path, workspace: Workspace) -> None:
    from core.memory.estimate import make_plan

    values = {"data.path": str(rows_file), "data.max_length": 64, "train.effective_batch": 2, "train.max_steps": 1}
    settled, _ = take_over(make_recipe({**values, "lora.start_from": _brought(workspace, tiny)}), workspace)
    begun = make_plan(settled, workspace)
    alike = {"model": str(tiny), "lora.rank": 6, "lora.targets": "q_v"}
    assert begun.peak.breakdown == make_plan(make_recipe({**values, **alike}), workspace).peak.breakdown


def test_weights_of_other_shapes_are_refused_before_the_first_step(
    tiny: Path, rows_file: Path, workspace: Workspace
) -> None:
    run = _fresh(tiny, rows_file, workspace, **{"lora.start_from": _brought(workspace, tiny)})
    weights = dict(load_file(run.start / "adapter_model.safetensors"))
    name = next(iter(weights))
    from safetensors.torch import save_file as save

    save({**weights, name: torch.ones(6, 3)}, run.start / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="The adapter that this run starts from"):
        loop.train(run)
