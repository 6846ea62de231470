"""A model whose files lack a weight that it computes with is refused; what plain transformers loads whole, works."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.basemodel.find import FoundModel, find_model
from core.basemodel.headers import TensorShape
from core.errors import ModelError
from core.model.fit import ModelFit, fit_of, refuse_misfit
from core.model.load import load_base
from core.recipe import QuantizationSettings
from core.system.hardware import Device
from tests.core.families import FAMILIES
from tests.tiny import tiny_model

Tensors = dict[str, torch.Tensor]
CPU = Device("cpu", "CPU", 2**34, 2**33)


def _changed(base: Path, to: Path, change: Callable[[Tensors], Tensors], **config: Any) -> FoundModel:
    """A copy of the model in `base` with other tensors in its files, or other words in its config."""
    shutil.copytree(base, to)
    tensors = load_file(to / "model.safetensors")
    save_file(change(tensors), to / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**settings, **config}))
    return find_model(str(to))


def _same(tensors: Tensors) -> Tensors:
    return tensors


def _without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value for name, value in tensors.items() if part not in name}


def _renamed(rename: Callable[[str], str]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {rename(name): value for name, value in tensors.items()}


def _with(name: str, *shape: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: torch.ones(shape)}


def _half_as_wide(tensors: Tensors) -> Tensors:
    name = "model.layers.0.mlp.up_proj.weight"
    return {**tensors, name: tensors[name][:64].clone()}


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_whole_model_of_every_family_is_let_through(architecture: str, tmp_path: Path) -> None:
    assert fit_of(find_model(str(tiny_model(tmp_path / "m", architecture)))) == ModelFit()


# What was done to a random two-layer Llama of 21 tensors, and what is said of it.
DAMAGE: dict[str, tuple[Callable[[Tensors], Tensors], dict[str, Any], str]] = {
    "no head": (_without("lm_head"), {}, r"lack 1 of the 21 weights .*\(lm_head.weight\).*tie_word_embeddings"),
    "a layer gone": (_without(".1."), {}, r"lack 9 of the 21 weights .*\(model.layers.1.input_layernorm.weight first"),
    "a norm gone": (_without("model.norm"), {}, r"lack 1 of the 21 weights .*\(model.norm.weight\)"),
    "compiled": (_renamed("_orig_mod.{}".format), {}, r"lack 21 of the 21 .*names hold _orig_mod"),
    "distributed": (_renamed("module.{}".format), {}, r"lack 21 of the 21 .*names hold module:"),
    "both": (_renamed("module._orig_mod.{}".format), {}, r"lack 21 of the 21 .*names hold _orig_mod"),
    "another tool's": (_renamed("transformer.{}".format), {}, r"lack 21 of the 21 "),
    "another shape": (
        _half_as_wide,
        {},
        r"1 weight has a different shape .*up_proj.weight is 64 × 64 instead of 128 "
        r"× 64",
    ),
    "another vocabulary": (
        _same,
        {"vocab_size": 600},
        r"2 weights have a different shape .*is 512 × 64 instead of 600 × 6",
    ),
    "fewer layers": (_same, {"num_hidden_layers": 1}, r"hold 9 weights .*model.layers.1.*its number of layers"),
    "more layers": (_same, {"num_hidden_layers": 3}, r"lack 9 of the 30 weights .*model.layers.2"),
    "a bias more": (_with("model.layers.0.self_attn.q_proj.bias", 64), {}, r"hold 1 weight .*q_proj.bias"),
    "scales of 8 bits": (_with("model.layers.0.mlp.up_proj.weight_scale_inv", 1, 1), {}, r"hold 1 weight .*scale_inv"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_would_be_random_or_left_out_is_refused_before_a_load(tiny: Path, tmp_path: Path, damage: str) -> None:
    change, config, said = DAMAGE[damage]
    found = _changed(tiny, tmp_path / "model", change, **config)
    with pytest.raises(ModelError, match=said):
        load_base(found, QuantizationSettings(), CPU)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("experts.3.up_proj", "lack 2 of"),
        (
            "experts.3.",
            r"4 weights have a different shape .*is 3 × 64 × 64 instead "
            r"of 4",
        ),
    ],
)
def test_an_expert_that_is_gone_from_a_mixture_is_missed(tmp_path: Path, lost: str, said: str) -> None:
    """The files keep each expert apart, transformers computes with all in one tensor."""
    whole = tiny_model(tmp_path / "whole", "qwen3_moe")
    assert any(lost in name for name in load_file(whole / "model.safetensors"))
    with pytest.raises(ModelError, match=said):
        refuse_misfit(_changed(whole, tmp_path / "model", _without(lost)))


# What transformers maps by itself, or ignores: the logits are those that it computes.
FINE: dict[str, tuple[Callable[[Tensors], Tensors], dict[str, Any], str]] = {
    "a prefix lacking": (_renamed(lambda name: name.removeprefix("model.")), {}, ""),
    "a prefix too many": (_renamed("model.{}".format), {}, ""),
    "a tied head": (_without("lm_head"), {"tie_word_embeddings": True}, ""),
    "old rotations": (_with("model.layers.0.self_attn.rotary_emb.inv_freq", 8), {}, ""),
    "old masks": (_with("model.layers.0.self_attn.bias", 1, 1, 8, 8), {}, "hold 1 weight that it does not use"),
    "another task's head": (_with("score.weight", 2, 64), {}, "hold 1 weight that it does not use"),
    "a tower": (_with("vision_tower.layers.0.fc.weight", 4, 4), {}, "hold 1 weight that it does not use"),
    "a layer that predicts ahead": (
        _with("model.layers.2.eh_proj.weight", 4, 4),
        {"num_nextn_predict_layers": 1},
        "hold 1 weight that it does not use",
    ),
}


@pytest.mark.parametrize("case", FINE)
def test_what_transformers_loads_whole_answers_as_there(tiny: Path, tmp_path: Path, case: str) -> None:
    from transformers import AutoModelForCausalLM

    change, config, said = FINE[case]
    found = _changed(tiny, tmp_path / "model", change, **config)
    fit = refuse_misfit(found)
    assert said in fit.note if said else not fit.note
    plain = AutoModelForCausalLM.from_pretrained(found.folder, dtype=torch.float32).eval()
    ours = load_base(found, QuantizationSettings(bits=16), CPU).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(ours(input_ids=ids).logits, plain(input_ids=ids).logits)
        if case != "a tied head":
            whole = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
            assert torch.equal(ours(input_ids=ids).logits, whole(input_ids=ids).logits)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_random_weight_never_trains_even_where_nothing_is_seen_before(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    """The net below: as for a model with code of its own, whose files cannot be judged by their headers."""
    monkeypatch.setattr("core.model.load.refuse_misfit", lambda found: None)
    lost = _changed(tiny, tmp_path / "lost", _without("layers.1.mlp"))
    with pytest.raises(ModelError, match=r"3 weights of the model are not in its files \(model.layers.1.mlp.down_proj"):
        load_base(lost, QuantizationSettings(bits=bits), CPU)
    narrow = _changed(tiny, tmp_path / "narrow", _half_as_wide)
    with pytest.raises(ModelError):
        load_base(narrow, QuantizationSettings(bits=bits), CPU)


def test_a_kind_that_transformers_has_no_language_model_of_is_refused_by_its_config() -> None:
    found = FoundModel("x", "x", "x", {"model_type": "mistral3"}, None)
    found.__dict__["tensors"] = [TensorShape("a", (2, 2))]
    with pytest.raises(ModelError, match="Models of the type 'mistral3' cannot be trained here"):
        refuse_misfit(found)


def test_a_7b_takes_seconds() -> None:
    """Llama 2 7B: 32 layers, 291 tensors, from its published sizes."""
    config = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    config |= {"num_attention_heads": 32, "vocab_size": 32000}
    layer = dict.fromkeys((f"self_attn.{each}_proj" for each in "qkvo"), (4096, 4096))
    layer |= {"mlp.gate_proj": (11008, 4096), "mlp.up_proj": (11008, 4096), "mlp.down_proj": (4096, 11008)}
    layer |= {"input_layernorm": (4096,), "post_attention_layernorm": (4096,)}
    tensors = [
        TensorShape(f"model.layers.{i}.{n}.weight", shape, "F16") for i in range(32) for n, shape in layer.items()
    ]
    ends = [("model.embed_tokens", (32000, 4096)), ("lm_head", (32000, 4096)), ("model.norm", (4096,))]
    tensors += [TensorShape(f"{name}.weight", shape, "F16") for name, shape in ends]
    found = FoundModel("llama", "llama", "llama", config, None)
    found.__dict__["tensors"] = tensors
    began = time.monotonic()
    assert len(tensors) == 291 and refuse_misfit(found) == ModelFit()
    assert time.monotonic() - began < 20
