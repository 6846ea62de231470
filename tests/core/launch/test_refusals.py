"""What a run is refused for: the check before the start says what the start would."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.basemodel.find import find_model
from core.errors import RecipeError
from core.launch import submit
from core.launch.submit import refuse
from core.preflight.process import _Work
from core.recipe import make_recipe
from core.system.hardware import Device
from core.workspace import Workspace

CPU = Device("cpu", "CPU · 2 cores", 16 * 2**30, 8 * 2**30)
FLASH = {"model": "starter", "train.attention": "flash_attention_2"}


def test_flash_attention_on_a_cpu_is_refused_in_the_check_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "device", lambda: CPU)
    workspace = Workspace.open(tmp_path)
    with pytest.raises(RecipeError, match="flash_attention_2 needs an NVIDIA GPU") as refused:
        refuse(make_recipe(FLASH), find_model("starter"), workspace)
    recipe = make_recipe(FLASH).model_dump()
    (answer,) = _Work().handle({"op": "check", "workspace": str(tmp_path), "recipe": recipe})
    assert answer["errors"] == [{"where": "recipe", "message": str(refused.value)}] and not answer["ok"]


def test_of_several_machines_this_ones_devices_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "device", lambda: CPU)
    assert refuse(make_recipe(FLASH), find_model("starter"), Workspace.open(tmp_path), machines=2) is None


def test_streamed_layers_are_refused_on_apples_gpu_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, model, workspace = (
        make_recipe({"train.streamed_layers": 2}),
        find_model("starter"),
        Workspace.open(tmp_path),
    )
    refuse(recipe, model, workspace)
    monkeypatch.setattr(submit, "device", lambda: Device("mps", "Apple arm64", 2**34, 2**33))
    with pytest.raises(RecipeError, match="Apple's GPU cannot stream layers. Leave it empty"):
        refuse(recipe, model, workspace)
