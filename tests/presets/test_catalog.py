"""The catalogue of models and cards: every file is whole, every config builds the model that was published."""

import subprocess
import sys
from dataclasses import fields

import pytest
import torch
import yaml

from core.basemodel.find import model_presets
from core.catalogue.facts import CARDS, MODELS, Card, ModelFacts, cards, find_card, find_model_facts, model_facts
from core.errors import ModelError, NibbleError
from core.recipe import load_recipe, recipe_presets
from core.workspace import ROOT

GUANACO = {"guanaco-7b": 2e-4, "guanaco-13b": 2e-4, "guanaco-33b": 1e-4, "guanaco-65b": 1e-4}
ASKED_MODELS = {
    *("llama-7b", "llama-13b", "llama-33b", "llama-65b", "llama-2-7b", "llama-3-8b", "llama-3.1-405b", "llama-3.2-1b"),
    *("llama-3.3-70b", "mistral-7b", "mixtral-8x7b", "qwen2.5-0.5b", "qwen2.5-72b", "qwen3-30b-a3b", "gemma-2-9b"),
    *("gemma-3-1b", "phi-3-mini", "phi-4", "pythia-160m", "opt-125m", "falcon-7b", "smollm2-135m", "tinyllama-1.1b"),
}
OPTIONAL = {"card_total", "flops_bf16", "flops_fp16"}


def build(facts: ModelFacts) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**facts.config))


@pytest.mark.parametrize(("folder", "kind"), [(MODELS, ModelFacts), (CARDS, Card)])
def test_every_file_has_its_fields_and_no_others(folder, kind) -> None:
    allowed = {field.name for field in fields(kind)} - {"name"}
    for file in folder.glob("*.yaml"):
        keys = set(yaml.safe_load(file.read_text(encoding="utf-8")))
        assert allowed - OPTIONAL <= keys <= allowed, file.name


def test_there_are_enough_models_from_a_tenth_of_a_billion_to_405_billion() -> None:
    counts = sorted(facts.parameters for facts in model_facts().values())
    assert len(counts) >= 25
    assert counts[0] < 0.2e9 and counts[-1] > 400e9
    assert set(model_facts()) >= ASKED_MODELS


@pytest.mark.parametrize("name", sorted(model_facts()))
def test_a_config_builds_the_model_that_was_published(name: str) -> None:
    facts = model_facts()[name]
    counted = sum(parameter.numel() for parameter in build(facts).parameters())  # a tied weight is listed once
    assert counted == pytest.approx(facts.parameters, rel=0.005)


@pytest.mark.parametrize("name", sorted(name for name, facts in model_facts().items() if facts.card_total))
def test_where_the_card_says_another_number_the_difference_is_explained(name: str) -> None:
    """A tied head that is in the files a second time, or the rotary frequencies of each layer's head dimension."""
    facts, config = model_facts()[name], model_facts()[name].config
    head = config["vocab_size"] * config["hidden_size"]
    rotary = config["num_hidden_layers"] * config["hidden_size"] // config["num_attention_heads"] // 2
    assert facts.card_total - facts.parameters == (head if config["tie_word_embeddings"] else rotary)


@pytest.mark.parametrize(("name", "windows"), [("gemma-2-9b", 21), ("gemma-3-1b", 22), ("llama-7b", 0)])
def test_layers_that_attend_to_a_window_are_known(name: str, windows: int) -> None:
    from transformers import AutoConfig

    layers = getattr(AutoConfig.for_model(**find_model_facts(name).config), "layer_types", None) or []
    assert sum(layer == "sliding_attention" for layer in layers) == windows


def test_rope_survives_the_way_into_a_config() -> None:
    from transformers import AutoConfig

    rope = AutoConfig.for_model(**find_model_facts("llama-3.2-1b").config).rope_parameters
    assert (rope["rope_type"], rope["rope_theta"], rope["factor"]) == ("llama3", 500000.0, 32.0)


def test_a_model_is_found_by_its_name_and_by_its_hub_id() -> None:
    assert find_model_facts("LLaMA-7B ").hub == "huggyllama/llama-7b"
    assert find_model_facts("qwen/qwen2.5-7b").name == "qwen2.5-7b"


def test_an_unknown_model_names_those_near_it() -> None:
    with pytest.raises(ModelError, match=r"Unknown model 'lama-7b'\. Similar: llama-7b"):
        find_model_facts("lama-7b")
    with pytest.raises(ModelError, match=r"Known: .*llama-65b"):
        find_model_facts("zzz")


def test_there_are_enough_cards_and_their_figures_are_plausible() -> None:
    assert len(cards()) >= 20
    for card in cards().values():
        assert card.memory_from in ("cuda", "nvidia-smi", "nominal")
        assert (card.flops_bf16 is None) != (card.flops_fp16 is None)
        assert 200e9 <= card.memory_bandwidth <= 5e12
        assert all(1e11 <= rate <= 1e15 for rate in card.flops.values())
        assert 5e12 <= card.flops_fp32 <= 2e14


@pytest.mark.parametrize("name", sorted(cards()))
def test_a_cards_name_says_its_memory_and_its_dtype_fits_its_generation(name: str) -> None:
    card = cards()[name]
    nominal = int(name.rsplit("-", 1)[1].removesuffix("gb"))
    assert 0.9 * nominal * 2**30 < card.memory_bytes <= nominal * 2**30
    assert (card.computes_in() == "bfloat16") == (card.compute_capability >= (8, 0))
    assert card.computes_in() in card.flops


def test_a_card_is_found_and_an_unknown_one_names_those_near_it() -> None:
    card = find_card("A6000-48GB")
    assert card.compute_capability == (8, 6) and card.memory_bytes > 47 * 2**30
    with pytest.raises(NibbleError, match=r"Unknown card 'rtx-4090'\. Similar: .*rtx-4090-24gb"):
        find_card("rtx-4090")


@pytest.mark.parametrize("name", sorted(GUANACO))
def test_a_guanaco_recipe_is_the_papers(name: str) -> None:
    recipe = load_recipe(name)
    assert name in recipe_presets() and recipe.model in model_facts()
    assert recipe.train.learning_rate == GUANACO[name]
    assert recipe.lora.dropout == (0.1 if name == "guanaco-7b" else 0.05)
    assert (recipe.lora.rank, recipe.lora.alpha) == (64, 16)
    assert (recipe.train.max_steps, recipe.train.effective_batch, recipe.data.max_length) == (1875, 16, 528)
    assert (recipe.data.train_on, recipe.data.template, recipe.train.schedule) == ("everything", "guanaco", "constant")


def test_the_menu_of_models_that_are_here_still_works() -> None:
    assert "starter" in model_presets()


def test_the_catalogue_needs_no_torch() -> None:
    code = "import sys, core.catalogue.facts as c; c.cards(); c.model_facts(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
