"""What cannot work is said beside the Start button, in one sentence, before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from app.context import Context
from app.train.wire import TrainTab
from app.ui import menus
from app.ui.form import DEFAULTS, flat
from core.recipe import load_recipe, make_recipe, recipe_presets
from core.runs.find import list_runs


def _said_after_start(tab: TrainTab, context: Context, given: dict[Any, Any], changes: dict[str, Any]) -> str:
    changed = {**given, **{tab.form.fields[key]: value for key, value in changes.items()}}
    return str(tab.events.start(changed)[tab.layout.form.message])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora.rank": 0}, "Rank (lora.rank): 0 is not valid; allowed: 1 to 512."),
        ({"lora.rank": None}, "Rank (lora.rank): None is not valid"),
        ({"lora.alpha": -1}, "Alpha (lora.alpha): -1 is not valid; allowed: above 0 to 4,096."),
        ({"train.learning_rate": 0}, "Learning rate (train.learning_rate): 0 is not valid"),
        ({"train.max_steps": -5}, "Max steps (train.max_steps): -5 is not valid"),
        ({"train.effective_batch": 8, "train.micro_batch": 3}, "does not divide"),
        ({"budget": 0}, "leaves no memory"),
        ({"budget": 0.1}, "Memory budget (budget): "),
        (
            {"train.attention": "flash_attention_2"},
            "Attention (train.attention): flash_attention_2 needs an NVIDIA GPU",
        ),
        ({"model": ""}, "model"),
        ({"model": "no-such-preset"}, "There is no model"),
        ({"model": "nobody/no-such-model"}, "nobody/no-such-model is not on this machine"),
        ({"data.path": "no/such/file.json"}, "There is no dataset"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(
    train_tab: TrainTab, context: Context, given: dict[Any, Any], changes: dict[str, Any], said: str
) -> None:
    shown = _said_after_start(train_tab, context, given, changes)
    assert "nb-error" in shown
    assert said in shown
    assert list_runs(context.workspace) == []


def test_an_error_shows_what_was_typed_as_text(train_tab: TrainTab, context: Context, given: dict[Any, Any]) -> None:
    shown = _said_after_start(train_tab, context, given, {"model": "<img src=x onerror=alert(1)>"})
    assert "<img" not in shown
    assert "&lt;img" in shown


def test_a_folder_without_weights_is_refused(
    train_tab: TrainTab, context: Context, given: dict[Any, Any], tmp_path: Path
) -> None:
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / "config.json").write_text('{"model_type": "llama"}')
    shown = _said_after_start(train_tab, context, given, {"model": str(tmp_path / "hollow")})
    assert "no weights" in shown


def test_an_upload_is_kept_and_chosen(train_tab: TrainTab, context: Context, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n')
    update = train_tab.events.keep([str(file)])
    file.unlink()  # Gradio's own copy goes away
    chosen = update[train_tab.form.fields["data.path"]]
    assert Path(chosen.value).read_text() == '{"prompt": "a", "completion": "b"}\n'
    assert ("mine.jsonl", chosen.value) in menus.datasets(context.workspace)


def test_several_files_are_kept_as_one_dataset(train_tab: TrainTab, context: Context, tmp_path: Path) -> None:
    files = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    for file in files:
        file.write_text(f'{{"prompt": "{file.stem}", "completion": "b"}}\n')
    update = train_tab.events.keep([str(file) for file in files])
    chosen = update[train_tab.form.fields["data.path"]].value
    assert sorted(file.name for file in Path(chosen).iterdir()) == ["first.jsonl", "second.jsonl"]
    assert chosen in [value for _, value in menus.datasets(context.workspace)]


def test_what_was_corrected_by_hand_is_not_meant_for_another_dataset(train_tab: TrainTab, context: Context) -> None:
    update = train_tab.events.read_anew()
    assert update[train_tab.form.fields["data.format"]] == "auto"
    assert update[train_tab.form.fields["data.mapping"]] == DEFAULTS["data.mapping"]


def test_the_untouched_form_is_the_recipes_defaults(train_tab: TrainTab, given: dict[Any, Any]) -> None:
    values = train_tab.form.values(given)
    assert {**flat(make_recipe(values)), "budget": None} == DEFAULTS


def test_every_setting_of_a_recipe_has_its_field(train_tab: TrainTab) -> None:
    assert set(train_tab.form.fields) == set(DEFAULTS) - {"version"}


def test_a_recipe_on_the_form_reads_back_as_the_same_recipe(
    train_tab: TrainTab, context: Context, given: dict[Any, Any]
) -> None:
    update = train_tab.events.fill_from("quickstart")
    shown = {**given, **{part: value for part, value in update.items() if part in given}}
    shown[train_tab.form.fields["budget"]] = None
    assert make_recipe(train_tab.form.values(shown)) == load_recipe("quickstart")


@pytest.mark.parametrize("name", sorted(recipe_presets()))
def test_every_recipe_goes_through_the_form_unchanged(
    train_tab: TrainTab, context: Context, given: dict[Any, Any], name: str
) -> None:
    update = train_tab.events.fill_from(name)
    shown = {**given, **{part: value for part, value in update.items() if part in given}}
    shown[train_tab.form.fields["budget"]] = None
    assert make_recipe(train_tab.form.values(shown)) == load_recipe(name)
    assert "Source: " in update[train_tab.layout.form.about]


def test_a_recipe_without_a_model_or_data_leaves_those_on_the_form(
    train_tab: TrainTab, context: Context, given: dict[Any, Any]
) -> None:
    fields = train_tab.form.fields
    update = train_tab.events.fill_from("modern")
    assert fields["model"] not in update and fields["data.path"] not in update
    assert update[fields["lora.rank"]] == 32


def test_names_are_typed_with_commas(train_tab: TrainTab, given: dict[Any, Any]) -> None:
    fields = train_tab.form.fields
    typed = {fields["lora.targets"]: "q_proj, v_proj", fields["lora.extra_modules"]: "embeddings,head"}
    recipe = make_recipe(train_tab.form.values({**given, **typed}))
    assert recipe.lora.targets == ["q_proj", "v_proj"]
    assert recipe.lora.extra_modules == ["embeddings", "head"]
    shown = train_tab.form.updates(flat(recipe))
    assert shown[fields["lora.targets"]] == "q_proj, v_proj"
    assert shown[fields["lora.extra_modules"]] == "embeddings, head"


def test_what_contradicts_is_said_by_the_fields_names(
    train_tab: TrainTab, context: Context, given: dict[Any, Any]
) -> None:
    shown = _said_after_start(train_tab, context, given, {"lora.dora": True, "lora.init": "pissa"})
    assert "DoRA (lora.dora) starts from the base as it is; it cannot be combined with LoRA init (lora.init)" in shown


def test_an_adapter_to_be_trained_further_brings_its_settings(
    train_tab: TrainTab, context: Context, given: dict[Any, Any]
) -> None:
    fields, folder = train_tab.form.fields, context.workspace.adapters / "<b>mine"
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": "starter", "r": 4, "lora_alpha": 12, "use_rslora": True}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    layers = [f"base_model.model.model.layers.{layer}.self_attn.q_proj" for layer in range(5)]
    save_file({f"{name}.lora_A.weight": np.ones((4, 8)) for name in layers}, folder / "adapter_model.safetensors")
    events = train_tab.events
    shown = events.begin_from("adapter:<b>mine")
    assert (shown[fields["lora.rank"]], shown[fields["lora.alpha"]], shown[fields["lora.targets"]]) == (4, 12, "q_proj")
    assert (
        "“&lt;b&gt;mine” is trained further as it is: rank 4, alpha 12, on q_proj, rsLoRA, over starter."
        in (shown[train_tab.layout.form.message])
    )
    menu = shown[fields["lora.start_from"]]
    assert menu.value == "adapter:<b>mine" and [key for _, key in menu.choices] == ["", "adapter:<b>mine"]
    assert "There are no runs yet" in events.begin_from("run:x")[train_tab.layout.form.message]
    otherwise = {"lora.start_from": "adapter:<b>mine", "lora.rank": 16}
    said = _said_after_start(train_tab, context, given, otherwise)
    assert "Rank (lora.rank): 16 is not possible: the adapter &lt;b&gt;mine has 4" in said
    assert events.begin_from("") == {train_tab.layout.form.message: ""}


def _answers(tab: TrainTab, monkeypatch: pytest.MonkeyPatch, previews: list[dict[str, Any]], stage: str) -> None:
    """Let the helper answer with these previews, and with a check of data that has come to `stage`."""
    data = {"stage": stage, "progress": 0.2, "rows": 1, "usable": 1}

    def call(op: str, **arguments: Any) -> dict[str, Any]:
        if op == "preview":
            return previews.pop(0)
        return {"errors": [], "ok": True, "data": data} if op == "check" else data

    monkeypatch.setattr(tab.session.data, "_ask", call)


def test_a_row_that_was_still_being_read_is_shown_after_the_check(
    train_tab: TrainTab, context: Context, given: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"row": 1, "rows": 1, "length": 1, "trained": 1, "tokens": [{"id": 7, "text": "Arr", "trained": True}]}
    _answers(train_tab, monkeypatch, [{"waiting": {}}, row], "done")
    updates = list(train_tab.events.look(given))
    assert "Arr" in updates[-1][train_tab.layout.preview.row]


def test_large_data_is_checked_again_when_it_is_read(
    train_tab: TrainTab, context: Context, given: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _answers(train_tab, monkeypatch, [{"waiting": {}}, {"waiting": {}}], "reading")
    data, seen = train_tab.session.data, {}
    list(train_tab.events.look(given))
    data.report = {"stage": "reading", "progress": 0.2}
    assert "Reading… 20 %. You can start now" in train_tab.tick(seen)[train_tab.layout.preview.check]
    data.report = {"stage": "done", "progress": 1.0}
    assert train_tab.tick(seen)[train_tab.layout.read] == data.turn
    assert train_tab.layout.read not in train_tab.tick(seen)
    data.forget()


def test_the_settings_survive_a_reload(train_tab: TrainTab, context: Context, given: dict[Any, Any]) -> None:
    rank, prompts = train_tab.form.fields["lora.rank"], train_tab.form.fields["evaluation.prompts"]
    train_tab.events.remember({**given, rank: 48, prompts: "Who are you?\n\nWhy?"})
    filled = train_tab.fill()
    assert filled[rank] == 48
    assert filled[prompts] == "Who are you?\nWhy?"
    assert filled[train_tab.form.fields["budget"]].value == 2.0


def test_settings_of_another_version_do_not_hinder(train_tab: TrainTab, context: Context) -> None:
    context.form_file.write_text('{"lora.rank": 8, "gone.setting": 1, "budget": "80%"}')
    assert train_tab.fill()[train_tab.form.fields["lora.rank"]] == 8
    context.form_file.write_text("{half")
    assert train_tab.events.context is context
    assert train_tab.fill()[train_tab.form.fields["lora.rank"]] == DEFAULTS["lora.rank"]


def test_a_first_visit_is_told_which_numbers_are_empty(train_tab: TrainTab, context: Context) -> None:
    assert train_tab.fill()[train_tab.form.fields["train.max_steps"]] is None


def test_what_nobody_foresaw_is_shown_too_with_its_traceback_folded(
    train_tab: TrainTab, context: Context, given: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise AttributeError("no such thing <b>")

    monkeypatch.setattr("core.launch.submit.submit", broken)
    shown = _said_after_start(train_tab, context, given, {})
    assert "AttributeError: no such thing &lt;b&gt;" in shown
    assert "<summary>Details</summary>" in shown and "Traceback" in shown
