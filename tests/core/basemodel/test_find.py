"""What is not a base model is refused in one sentence, before anything is loaded or written."""

import json
import struct

import pytest

from core.basemodel.find import find_model, model_choices
from core.errors import BudgetError, ModelError, RecipeError
from core.memory.budget import floor_bytes, read_budget
from core.recipe import make_recipe
from core.system.hardware import Device
from core.workspace import Workspace
from tests.core.basemodel.model_folder import model_folder, write_weights


def test_a_folder_with_weights_is_found(tmp_path) -> None:
    found = find_model(str(model_folder(tmp_path / "my model")))
    assert found.label == "my model"
    assert found.parameters == 4


def test_a_name_that_is_nearly_one_is_answered_with_that_one() -> None:
    with pytest.raises(ModelError, match=r"There is no model 'Qwen3-8'\. Similar: .*qwen3-8b"):
        find_model("Qwen3-8")
    with pytest.raises(ModelError, match=r"'zzz'\. Give a name that docs/settings\.md lists"):
        find_model("zzz")


def test_the_starter_is_found_by_its_name() -> None:
    found = find_model("starter")
    assert 3_000_000 < found.parameters < 6_000_000


@pytest.mark.parametrize(
    "wanted",
    [
        "no-such-preset",
        "",
        "../..x",
        "a/b/c",
        "C:\\models\\x",
        "org/na me",
        "org/a--b",
        "org/a.git",
        "x" * 5000,
        "~nobody-here/x",
    ],
)
def test_what_names_nothing_is_refused(wanted: str) -> None:
    with pytest.raises(ModelError, match="There is no model"):
        find_model(wanted)


def test_a_hub_id_while_offline_is_refused(monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="is not on this machine, and HF_HUB_OFFLINE forbids"):
        find_model("nobody/nothing")


def test_an_empty_folder_is_no_model(tmp_path) -> None:
    with pytest.raises(ModelError, match="no config.json"):
        find_model(str(tmp_path))


def test_a_file_is_no_model(tmp_path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_text("x")
    with pytest.raises(ModelError, match="is a file, not a model"):
        find_model(str(file))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), "has no weights"),
        (("pytorch_model.bin",), "only pickled weights"),
        (("model.gguf",), "is a GGUF"),
    ],
)
def test_a_folder_without_safe_weights_is_refused(tmp_path, files: tuple[str, ...], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        find_model(str(model_folder(tmp_path / "m", files=files)))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "names no model_type"),
        ([1], "contains no settings"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, "is already quantised"),
    ],
)
def test_a_config_that_cannot_be_trained_is_refused(tmp_path, config: object, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        find_model(str(model_folder(tmp_path / "m", config)))


def test_a_damaged_config_is_refused(tmp_path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "config.json").write_text('{"model_type": ')
    with pytest.raises(ModelError, match="not valid JSON"):
        find_model(str(folder))


def test_weights_cut_short_are_refused(tmp_path) -> None:
    folder = model_folder(tmp_path / "m", files=())
    write_weights(folder / "model.safetensors", whole=False)
    with pytest.raises(ModelError, match="cut short"):
        find_model(str(folder))


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 64, struct.pack("<Q", 10**12)])
def test_damaged_weights_are_refused(tmp_path, content: bytes) -> None:
    folder = model_folder(tmp_path / "m", files=())
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read"):
        find_model(str(folder))


def test_a_half_downloaded_model_is_refused(tmp_path) -> None:
    folder = model_folder(tmp_path / "m", files=("model-00001-of-00002.safetensors",))
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ModelError, match="1 of 2 weight files are missing"):
        find_model(str(folder))


def test_an_adapter_is_no_base(tmp_path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(ModelError, match="Its base model is org/base"):
        find_model(str(tmp_path))


def test_a_length_beyond_the_model_is_refused(tmp_path) -> None:
    from core.launch.submit import refuse

    with pytest.raises(RecipeError, match="data.max_length: 4,096 is not possible with .*; allowed: 16 to 1,024"):
        refuse(make_recipe({"data.max_length": 4096}), find_model("starter"), Workspace.open(tmp_path))


def test_weights_that_stand_there_twice_are_counted_once(tmp_path) -> None:
    folder = model_folder(tmp_path / "m", files=("model-00001-of-00001.safetensors", "consolidated.safetensors"))
    names = {"a": "model-00001-of-00001.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert find_model(str(folder)).parameters == 4


def test_the_menu_offers_presets_and_local_folders(tmp_path) -> None:
    workspace = Workspace.open(tmp_path)
    (tmp_path / "models").mkdir()
    model_folder(tmp_path / "models" / "mine")
    kinds = {choice.kind: choice for choice in model_choices(workspace) if choice.kind != "cache"}
    assert kinds["preset"].value == "starter"
    assert kinds["local"].label == "mine (folder)"


CPU = Device("cpu", "CPU", total_bytes=8 * 2**30, free_bytes=6 * 2**30)


@pytest.mark.parametrize("budget", ["1MiB", "0.1GB", "1%"])
def test_a_budget_below_the_floor_is_refused_with_the_smallest(budget: str) -> None:
    recipe = make_recipe({"budget": budget})
    with pytest.raises(BudgetError, match="Allowed: at least "):
        read_budget(recipe, find_model("starter"), CPU)


def test_a_budget_above_the_device_is_refused() -> None:
    with pytest.raises(BudgetError, match="up to 8.00 GiB"):
        read_budget(make_recipe({"budget": "9"}), find_model("starter"), CPU)


def test_the_floor_grows_with_the_rank_and_single_quantisation() -> None:
    found = find_model("starter")
    least = floor_bytes(found, make_recipe({"lora.rank": 8}), CPU)
    assert floor_bytes(found, make_recipe({"lora.rank": 64}), CPU) > least
    assert floor_bytes(found, make_recipe({"lora.rank": 8, "quantization.double": False}), CPU) > least
