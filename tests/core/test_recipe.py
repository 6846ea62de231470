"""A recipe refuses what it cannot mean, and says the key, the value and the range."""

import pytest

from core.errors import RecipeError
from core.recipe import Recipe, help_text, limits, load_recipe, make_recipe, recipe_presets, with_overrides
from core.sizes import GIB, parse_size


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("lora.rank", 0, "lora.rank: 0 is not valid; allowed: 1 to 512"),
        ("lora.rank", -8, "allowed: 1 to 512"),
        ("lora.alpha", 0, "allowed: above 0 to 4,096"),
        ("train.beta2", 1.0, "allowed: above 0 and below 1"),
        ("data", 3, "allowed: nested settings"),
        ("name", "x" * 81, "name: "),
        (7, "x", "7: there is no such setting"),
        ("lora.rank", "many", "lora.rank: 'many'"),
        ("train.learning_rate", float("nan"), "train.learning_rate"),
        ("train.learning_rate", float("inf"), "train.learning_rate"),
        ("train.effective_batch", 0, "allowed: 1 to 4,096"),
        ("data.max_length", 1, "allowed: 16 to 131,072"),
        ("data.format", "word", "data.format: 'word' is not valid"),
        ("lora.rnk", 8, "lora.rnk: there is no such setting"),
        ("train.micro_batch", 3, "does not divide train.effective_batch 16"),
        ("train.epochs", None, "both empty"),
        ("checkpoint.every_minutes", None, "both empty"),
        ("checkpoint.keep", 0, "allowed: 1 to 100"),
        ("lora.targets", 3, "lora.targets: 3 is not valid; allowed: all-linear, attention, q_v, or names."),
        ("lora.targets", [], "lora.targets: [] is not valid"),
        ("lora.targets", ["q proj"], "lora.targets: ['q proj'] is not valid"),
        ("lora.extra_modules", ["../x"], "allowed: embeddings, head, or names."),
        ("lora.init", "random", "lora.init: 'random' is not valid; allowed: 'default', 'pissa' or 'loftq'"),
        ("lora.scaling", "root", "lora.scaling: 'root' is not valid"),
        ("quantization.bits", 5, "quantization.bits: 5 is not valid; allowed: 4, 8 or 16"),
        ("train.optimizer", "sgd", "train.optimizer: 'sgd' is not valid"),
        ("train.neftune_alpha", 0, "train.neftune_alpha: 0 is not valid; allowed: above 0 to 100"),
        ("train.attention", "fast", "train.attention: 'fast' is not valid"),
        ("train.packing", "on", "train.packing: 'on' is not valid"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(key: str | int, value: object, said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        make_recipe({key: value})
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lora.dora": True, "lora.init": "pissa"}, "it cannot be combined with lora.init pissa."),
        ({"lora.dora": True, "lora.init": "loftq"}, "it cannot be combined with lora.init loftq."),
        ({"lora.dora": True, "quantization.bits": 8}, "lora.dora needs the base in 4 or 16 bits"),
        (
            {"lora.init": "loftq", "quantization.bits": 16},
            "corrects 4-bit quantisation error, but quantization.bits is 16",
        ),
        ({"lora.init": "pissa", "train.weight_decay": 0.1}, "needs train.weight_decay 0"),
        ({"quantization.type": "fp4", "quantization.bits": 8}, "fp4 is a 4-bit format, but quantization.bits is 8"),
        ({"lora.targets": ["head"], "lora.extra_modules": ["head"]}, "head is in lora.targets and in lora.extra_mod"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_in_one_sentence(values: dict, said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        make_recipe(values)
    assert said in str(refused.value)
    assert str(refused.value).count(". ") == 0 and str(refused.value).endswith(".")


def test_names_may_be_written_as_a_list_or_with_commas(tmp_path) -> None:
    recipe = load_recipe("modern", ["lora.targets=q_proj, mlp.up_proj", "lora.extra_modules=[embeddings, head]"])
    assert recipe.lora.targets == ["q_proj", "mlp.up_proj"]
    assert recipe.lora.extra_modules == ["embeddings", "head"]
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(str(file)) == recipe


def test_a_recipe_of_before_means_what_it_meant() -> None:
    """Of the settings that came later, each default is what was done when there was no choice."""
    recipe = make_recipe({"lora": {"rank": 8, "alpha": 16}, "quantization": {"type": "fp4", "double": False}})
    assert (recipe.lora.targets, recipe.lora.scaling, recipe.lora.init) == ("all-linear", "standard", "default")
    assert (recipe.lora.dora, recipe.lora.extra_modules, recipe.quantization.bits) == (False, [], 4)
    assert (recipe.train.neftune_alpha, recipe.train.attention, recipe.train.packing) == (None, "auto", "auto")


def test_a_recipe_survives_being_written_and_read(tmp_path) -> None:
    recipe = make_recipe({"lora.rank": 7, "budget": "80%", "evaluation.prompts": ["Hello: yes? #1"]})
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(str(file)) == recipe


def test_overrides_are_laid_over_the_file(tmp_path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("lora: {rank: 4}\n")
    recipe = load_recipe(str(file), ["lora.alpha=8", "train.learning_rate=1e-3", "data.path=a=b.jsonl", "name=on"])
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.train.learning_rate) == (4, 8, 0.001)
    assert recipe.data.path == "a=b.jsonl"


@pytest.mark.parametrize("override", ["lora.rank", "=3", "lora.rank=zero", "lora.rank.deep=3"])
def test_a_malformed_override_is_refused(override: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe("quickstart", [override])


@pytest.mark.parametrize("text", ["- a\n- b\n", "lora: [", "just words", "lora:\n  rank: {}\n"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError):
        load_recipe(str(file))


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-here/x", "a\0b", ""])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="There is no recipe"):
        load_recipe(name)


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(RecipeError, match="quickstart"):
        load_recipe("quikstart")


@pytest.mark.parametrize("name", sorted(recipe_presets()))
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert isinstance(load_recipe(name), Recipe)


def _settings(model=Recipe, prefix=""):
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from _settings(field.annotation, f"{prefix}{name}.")
        elif name != "version":
            yield f"{prefix}{name}"


@pytest.mark.parametrize("key", list(_settings()))
def test_every_setting_is_explained_in_a_sentence(key: str) -> None:
    assert help_text(key).endswith(".")
    assert len(limits(key)) == 2


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8", 8 * GIB),
        ("8GB", 8 * 10**9),
        ("8 GiB", 8 * GIB),
        ("1.5gib", int(1.5 * GIB)),
        ("80%", 8 * 10**8),
        (2, 2 * GIB),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str, size: int) -> None:
    assert parse_size(text, total_bytes=10**9) == size


@pytest.mark.parametrize("text", ["", "much", "8XB", "-3", "0", "0%", "1e3", "8 8", "nan"])
def test_a_size_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_size(text, total_bytes=10**9)


@pytest.mark.parametrize(("typed", "kept"), [("off", "off"), ("on", "on"), ("auto", "auto"), ('"off"', "off")])
def test_a_bare_on_or_off_of_yaml_is_the_word(typed: str, kept: str) -> None:
    values = with_overrides({}, [f"train.gradient_checkpointing={typed}"])
    assert make_recipe(values).train.gradient_checkpointing == kept


def test_patience_without_rows_to_measure_on_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"evaluation\.patience needs rows held out"):
        make_recipe({"evaluation.patience": 2, "data.eval_fraction": 0})
