"""What a person may choose reaches PEFT as it is meant, and the model starts from what it should."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from core.basemodel.find import find_model
from core.errors import ModelError, RecipeError
from core.memory.budget import adapter_parameters, extra_parameters, floor_bytes
from core.model.load import attach_lora, attention_implementation, load_adapter, load_base, parameters_trained
from core.model.lora_init import lora_layers, split, weight_of
from core.recipe import LoraSettings, QuantizationSettings, make_recipe
from core.step.fused_lora import fuse
from tests.core.model.tiny_adapted import CPU, adapted_to, base_of
from tests.tiny import tiny_model

IDS = torch.randint(3, 300, (2, 21), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose head is its embeddings."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tiny_model(tmp_path_factory.mktemp("models") / "tied")
    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = True
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


def disturb(model: Any) -> None:
    """Move everything that is trained away from where it started."""
    torch.manual_seed(7)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.05


def names_trained(model: Any) -> set[str]:
    """The layers with an adapter, by the last part of their names."""
    return {name.rpartition(".")[2] for name, _ in lora_layers(model)}


def losses(model: Any, steps: int = 4) -> list[float]:
    """Those of a few steps of AdamW."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.0)
    found = []
    for _ in range(steps):
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.parametrize(("bits", "kind", "dtype"), [(4, "Linear4bit", torch.uint8), (8, "Linear8bitLt", torch.int8)])
def test_a_base_is_quantised_to_the_bits_that_were_chosen(tiny: Path, bits: int, kind: str, dtype: torch.dtype) -> None:
    model = base_of(tiny, bits)
    layer = model.model.layers[0].mlp.up_proj
    assert type(layer).__name__ == kind
    assert layer.weight.dtype == dtype
    assert type(model.lm_head) is torch.nn.Linear


def test_more_bits_lose_less_and_sixteen_nothing(tiny: Path) -> None:
    """The 4-bit base is off by about a tenth of the logits' spread, the 8-bit one by a hundredth."""
    original = logits(base_of(tiny, 16))
    off = {bits: float((logits(base_of(tiny, bits)) - original).norm() / original.norm()) for bits in (4, 8, 16)}
    assert off[16] == 0.0
    assert 0.0 < off[8] < 0.03 < off[4] < 0.4


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"scaling": "rank_stabilised"},
        {"dropout": 0.5},
        {"dora": True},
        {"init": "pissa"},
        {"init": "pissa", "scaling": "rank_stabilised", "dropout": 0.5},
        {"extra_modules": ["embeddings", "head"]},
    ],
    ids=str,
)
def test_at_first_the_model_says_what_the_base_says(tiny: Path, bits: int, lora: dict[str, Any]) -> None:
    if lora.get("dora") and bits == 8:  # peft 0.21 loses the 8-bit scales after one step on a CPU
        with pytest.raises(RecipeError, match="lora.dora needs the base in 4 or 16 bits"):
            make_recipe({"lora.dora": True, "quantization.bits": bits})
        return
    expected = logits(base_of(tiny, bits))
    model = adapted_to(tiny, bits, **lora)
    assert torch.allclose(logits(model), expected, atol=2e-6)
    model.train()
    assert model(input_ids=IDS, labels=IDS).loss.requires_grad


@pytest.mark.parametrize(
    ("settings", "expected"), [({"scaling": "standard"}, 8 / 4), ({"scaling": "rank_stabilised"}, 8 / math.sqrt(4))]
)
@pytest.mark.parametrize("init", ["default", "pissa"])
def test_the_adapter_is_scaled_as_chosen(tiny: Path, settings: dict[str, Any], expected: float, init: Any) -> None:
    for _, layer in lora_layers(adapted_to(tiny, init=init, **settings)):
        assert layer.scaling["default"] == pytest.approx(expected)


def test_pissa_is_pefts_own_step_by_step_on_a_base_in_16_bits(tiny: Path) -> None:
    """PEFT takes the main directions out of the base; ours are taken off again by the adapter. The function is one."""
    from peft import LoraConfig, get_peft_model

    theirs = get_peft_model(
        base_of(tiny, 16), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights="pissa")
    )
    ours = adapted_to(tiny, 16, init="pissa")
    expected = losses(theirs)
    assert losses(ours) == pytest.approx(expected, abs=3e-4)
    assert expected[0] - expected[-1] > 0.1
    plain = losses(adapted_to(tiny, 16))
    assert abs(plain[-1] - expected[-1]) > 1e-3


def test_of_pissas_adapter_one_half_stands_still(tiny: Path) -> None:
    model = adapted_to(tiny, init="pissa")
    plain = sum(parameter.numel() for parameter in adapted_to(tiny).parameters() if parameter.requires_grad)
    assert parameters_trained(model, LoraSettings(init="pissa")) == plain
    start = {name: parameter.clone() for name, parameter in model.named_parameters() if parameter.requires_grad}
    losses(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            halves = zip(
                parameter.split(4, int("lora_B" in name)), start[name].split(4, int("lora_B" in name)), strict=True
            )
            (moved, before), (still, as_before) = halves
            assert torch.equal(still, as_before)
            assert not torch.equal(moved, before)


def test_a_rank_above_a_layers_directions_is_refused_for_pissa_only(tiny: Path) -> None:
    with pytest.raises(ModelError, match=r"lora.rank 65 is too high for lora.init pissa: .* Allowed here: 1 to 64"):
        adapted_to(tiny, init="pissa", rank=65)
    assert torch.allclose(logits(adapted_to(tiny, rank=65)), logits(base_of(tiny)), atol=1e-6)


def test_loftq_starts_nearer_the_original_model(tiny: Path) -> None:
    """Alpha differs from the rank, so that what the adapter is scaled by must be in the start too."""
    original, quantised = base_of(tiny, 16), base_of(tiny)
    model = adapted_to(tiny, init="loftq", rank=16, alpha=40)
    base_off = (logits(quantised) - logits(original)).norm()
    assert (logits(model) - logits(original)).norm() < 0.75 * base_off
    for name, layer in lora_layers(model):
        lost = original.get_submodule(name).weight - weight_of(layer.get_base_layer())
        given = layer.get_delta_weight("default")
        best = float(torch.linalg.svdvals(lost)[16:].norm())  # what any matrix of rank 16 must leave (Eckart and Young)
        assert float((lost - given).norm()) == pytest.approx(best, rel=1e-3)


def test_a_full_rank_loftq_gives_back_the_original(tiny: Path) -> None:
    model = adapted_to(tiny, init="loftq", rank=64, alpha=16)
    assert torch.allclose(logits(model), logits(base_of(tiny, 16)), atol=1e-5)


def test_loftq_reads_weights_of_several_files(tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(tiny).save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    several = adapted_to(tmp_path, init="loftq")
    assert torch.allclose(logits(several), logits(adapted_to(tiny, init="loftq")), atol=1e-5)


@pytest.mark.parametrize("rank", [1, 5, 40])
def test_a_matrix_is_split_into_its_best_approximation(rank: int) -> None:
    torch.manual_seed(4)
    weight = torch.randn(24, 37)
    a, b = split(weight, rank, scaling=2.5)
    assert (a.shape, b.shape) == ((rank, 37), (24, rank))
    best = torch.linalg.svdvals(weight)[rank:].norm()
    assert float((weight - 2.5 * b @ a).norm()) == pytest.approx(best.item(), rel=1e-3, abs=1e-4)


FAMILIES = {
    "llama": ({}, {"q_proj", "k_proj", "v_proj", "o_proj"}, {"q_proj", "v_proj"}),
    "gpt_neox": ({}, {"query_key_value", "dense"}, {"query_key_value"}),
    "falcon": ({}, {"query_key_value", "dense"}, {"query_key_value"}),
    "opt": (
        {"ffn_dim": 64, "word_embed_proj_dim": 32},
        {"q_proj", "k_proj", "v_proj", "out_proj"},
        {"q_proj", "v_proj"},
    ),
    "phi3": ({"pad_token_id": 0}, {"qkv_proj", "o_proj"}, {"qkv_proj"}),
    "mixtral": ({"num_local_experts": 4}, {"q_proj", "k_proj", "v_proj", "o_proj"}, {"q_proj", "v_proj"}),
    "gpt2": ({}, {"c_attn", "c_proj"}, {"c_attn"}),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_targets_are_found_in_every_family_and_never_the_head(family: str, bits: int) -> None:
    from core.memory.meta_model import meta_model

    more, attention, queries_and_values = FAMILIES[family]
    config = {"model_type": family, "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, **more}
    config |= {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}

    def found(targets: Any) -> set[str]:
        lora = LoraSettings(rank=2, targets=targets)
        return names_trained(meta_model(config, QuantizationSettings(bits=bits), lora, torch.float32, torch.float32))

    assert found("q_v") == queries_and_values
    assert found("attention") == attention
    assert found("all-linear") >= attention
    assert not found("all-linear") & {"lm_head", "embed_out"}


def test_targets_may_be_named(tiny: Path) -> None:
    assert names_trained(adapted_to(tiny, targets=["v_proj", "mlp.up_proj"])) == {"v_proj", "up_proj"}
    one = adapted_to(tiny, targets=["model.layers.1.self_attn.q_proj"])
    assert [name for name, _ in lora_layers(one)] == ["model.layers.1.self_attn.q_proj"]


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens", "nothing", "_proj"])
def test_what_is_no_linear_layer_is_no_target(tiny: Path, name: str) -> None:
    with pytest.raises(ModelError, match=f"no linear layer called {name}; it has q_proj, k_proj"):
        adapted_to(tiny, targets=["q_proj", name])


@pytest.mark.parametrize("extra", [["embeddings"], ["head"], ["embeddings", "lm_head"], ["norm"]])
@pytest.mark.parametrize("which", ["tiny", "tied"])
@pytest.mark.parametrize("bits", [4, 16])
def test_extra_modules_are_trained_saved_and_loaded(
    which: str, extra: list[str], bits: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(which)
    model = adapted_to(folder, bits, extra_modules=extra)
    start = losses(model, 3)
    disturb(model)
    model.save_pretrained(tmp_path)
    loaded = load_adapter(base_of(folder, bits), tmp_path)
    assert torch.allclose(logits(loaded), logits(model), atol=1e-6)
    assert start[-1] < start[0]
    inner, outer = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (inner is outer) is (which == "tied")
    assert inner.requires_grad is ("embeddings" in extra or (which == "tied" and extra != ["norm"]))


def test_without_the_adapter_the_base_has_its_own_modules_back(tiny: Path) -> None:
    model = adapted_to(tiny, extra_modules=["embeddings", "head"])
    disturb(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(base_of(tiny)))


@pytest.mark.parametrize(
    ("bits", "name", "said"),
    [(4, "nothing", "no module 'nothing'. It has embeddings, head"), (4, "up_proj", "held in 4 or 8 bits")],
)
def test_an_extra_module_that_cannot_be_is_refused(tiny: Path, bits: int, name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        adapted_to(tiny, bits, targets="attention", extra_modules=[name])


def test_what_does_not_start_from_zero_is_trained_in_fp32_and_speaks_the_models_dtype(tiny: Path) -> None:
    """bf16 beside a weight of 1 sees no step smaller than 0.004: DoRA's magnitudes would never move."""
    from transformers import AutoModelForCausalLM

    def trained_in(**lora: Any) -> set[torch.dtype]:
        base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16).requires_grad_(False)
        model = attach_lora(base, LoraSettings(rank=4, **lora), torch.bfloat16)
        assert logits(model).dtype == torch.bfloat16
        return {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}

    assert trained_in() == {torch.bfloat16}
    for lora in ({"dora": True}, {"init": "pissa"}, {"extra_modules": ["embeddings", "norm", "head"]}):
        assert trained_in(**lora) == {torch.float32}


@pytest.mark.parametrize(
    ("bits", "lora"),
    [
        (4, {"init": "pissa", "scaling": "rank_stabilised"}),
        (4, {"init": "loftq"}),
        (4, {"dora": True}),
        (16, {"dora": True, "targets": "q_v"}),
        (8, {"scaling": "rank_stabilised"}),
    ],
    ids=str,
)
def test_what_was_trained_is_loaded_by_peft_and_says_the_same(
    tiny: Path, tmp_path: Path, bits: int, lora: dict[str, Any]
) -> None:
    model = adapted_to(tiny, bits, **lora)
    losses(model, 3)
    model.save_pretrained(tmp_path)
    assert torch.allclose(logits(load_adapter(base_of(tiny, bits), tmp_path)), logits(model), atol=1e-5)


@pytest.mark.parametrize("which", ["tiny", "tied"])
@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"targets": "q_v"},
        {"targets": "attention", "dora": True},
        {"targets": ["up_proj"], "init": "pissa"},
        {"extra_modules": ["embeddings", "norm"]},
    ],
    ids=str,
)
def test_the_floor_counts_what_is_trained(which: str, lora: dict[str, Any], request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    settings = LoraSettings(rank=4, **lora)
    model = attach_lora(base_of(folder), settings, torch.float32)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    found = find_model(str(folder))
    assert adapter_parameters(found, settings) + extra_parameters(found, settings) == trained


def test_the_floor_knows_the_bits_and_the_optimizer(tiny: Path) -> None:
    found = find_model(str(tiny))

    def floor(**settings: Any) -> int:
        return floor_bytes(found, make_recipe({"lora.rank": 32, **settings}), CPU)

    assert floor() < floor(**{"quantization.bits": 8}) < floor(**{"quantization.bits": 16})
    states = [
        floor(**{"train.optimizer": name}) for name in ("paged_lion_8bit", "paged_adamw_8bit", "paged_lion_32bit")
    ]
    assert sorted(states) == states
    assert states[-1] < floor(**{"train.optimizer": "adamw"})
    assert floor(**{"lora.targets": "q_v"}) < floor(**{"lora.targets": "attention"}) < floor()
    assert floor(**{"lora.extra_modules": ["embeddings"]}) > floor()


@pytest.mark.parametrize(
    ("bits", "lora", "fused"),
    [
        (4, {}, 14),
        (4, {"scaling": "rank_stabilised"}, 14),
        (4, {"targets": "q_v"}, 4),
        (4, {"init": "pissa"}, 14),
        (4, {"init": "loftq"}, 14),
        (4, {"extra_modules": ["embeddings", "head"]}, 14),
        (4, {"dora": True}, 0),
        (4, {"dropout": 0.1}, 14),
        (8, {}, 0),
        (16, {}, 0),
    ],
    ids=str,
)
def test_fused_or_not_the_gradients_are_pefts(tiny: Path, bits: int, lora: dict[str, Any], fused: int) -> None:
    model = adapted_to(tiny, bits, **lora)
    disturb(model)

    def gradients() -> dict[str, torch.Tensor]:
        torch.manual_seed(1)  # dropout draws the same
        model.train().zero_grad()
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        named = {name: copy.copy(each.grad) for name, each in model.named_parameters() if each.grad is not None}
        return {name: gradient.clone() for name, gradient in named.items()}

    expected = gradients()
    assert fuse(model).layers == fused
    found = gradients()
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected[name], atol=1e-5), name


@pytest.mark.parametrize(("wanted", "name"), [("auto", "sdpa"), ("sdpa", "sdpa"), ("eager", "eager")])
def test_attention_is_computed_as_chosen(tiny: Path, wanted: str, name: str) -> None:
    model = load_base(find_model(str(tiny)), QuantizationSettings(), CPU, wanted)
    assert model.config._attn_implementation == name
    assert torch.allclose(logits(model), logits(base_of(tiny)), atol=1e-5)


@pytest.mark.parametrize(("kind", "dtype"), [("cpu", torch.bfloat16), ("mps", torch.float16)])
def test_flash_attention_is_refused_where_there_is_none(kind: str, dtype: torch.dtype) -> None:
    with pytest.raises(RecipeError, match="needs an NVIDIA GPU. Here, choose auto"):
        attention_implementation("flash_attention_2", kind, dtype)


def test_flash_attention_says_which_package_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.model.load.is_flash_attn_2_available", lambda: False)
    with pytest.raises(RecipeError, match="needs the package flash-attn"):
        attention_implementation("flash_attention_2", "cuda", torch.bfloat16)
    monkeypatch.setattr("core.model.load.is_flash_attn_2_available", lambda: True)
    assert attention_implementation("flash_attention_2", "cuda", torch.bfloat16) == "flash_attention_2"
