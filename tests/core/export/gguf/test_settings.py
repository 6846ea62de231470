"""Every setting that changes what is computed is in the GGUF, or refused: llama.cpp gives transformers' numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFWriter

from core.export.gguf.families import TensorLayout, family_of
from core.export.gguf.settings import refuse_settings
from core.export.gguf.writer import model_file, write_model
from core.export.merged.weights import MergedWeights
from core.export.proof.llama_cpp import LlamaCpp
from core.export.shared.destination import ExportError
from core.export.shared.source import ExportSource
from core.system.hardware import device
from tests.core.export.made import source_with_adapter
from tests.tiny import tiny_tokenizer

# Between two programs in fp32, of logarithms of probabilities down to e^-20. llama.cpp looks Gemma's GELU up in a table
# of fp16, which alone makes 3e-3; the others are apart by less than 1e-5.
CLOSE = 5e-3
PROMPT = [(7 * n + 3) % 300 + 5 for n in range(70)]
_SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "pad_token_id": 0,
}
_WINDOW = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16}


def _ropes(local: float, **full: Any) -> dict[str, Any]:
    return {
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
        "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0, **full},
    }


def _layers(count: int, period: int) -> list[str]:
    return ["full_attention" if (n + 1) % period == 0 else "sliding_attention" for n in range(count)]


def _rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0, **values}}


# What a published config.json may say otherwise than its family's first release did.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "Gemma 3, another local theta": ("gemma3_text", {**_WINDOW, "rope_parameters": _ropes(500.0)}),
    "Gemma 3, stretched as 4B and larger": (
        "gemma3_text",
        {**_WINDOW, "rope_parameters": _ropes(10_000.0, rope_type="linear", factor=8.0)},
    ),
    "Gemma 3, windows in every other layer": ("gemma3_text", {**_WINDOW, "layer_types": _layers(4, 2)}),
    "Gemma 2, other caps": (
        "gemma2",
        {**_WINDOW, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "Gemma 2, windows but for every third layer": ("gemma2", {**_WINDOW, "layer_types": _layers(4, 3)}),
    "Gemma 2, another theta": ("gemma2", {**_WINDOW, **_rope("default", rope_theta=700.0)}),
    "Gemma, larger heads": ("gemma", {"head_dim": 32}),
    "Llama, biases in attention": ("llama", {"attention_bias": True}),
    "Llama, larger heads": ("llama", {"head_dim": 32}),
    "Llama, fewer heads for keys": ("llama", {"num_key_value_heads": 2}),
    "Llama, tied, another epsilon": ("llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-2}),
    "Llama 3.1": (
        "llama",
        _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64),
    ),
    "Llama, stretched evenly": ("llama", _rope("linear", factor=4.0)),
    "Llama, YaRN": ("llama", _rope("yarn", factor=4.0, original_max_position_embeddings=32)),
    "Qwen 2, YaRN, its numbers spelt out": (
        "qwen2",
        _rope("yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0),
    ),
    "Qwen 3, YaRN": ("qwen3", {"head_dim": 16, **_rope("yarn", factor=4.0, original_max_position_embeddings=32)}),
}


def _base(folder: Path, kind: str, settings: dict[str, Any]) -> Path:
    """A random model whose weights are ten times as large as usual: with those, hardly anything but the last token
    decides what comes next."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tiny_tokenizer(folder)
    layers = {"num_hidden_layers": len(settings.get("layer_types", (1, 2)))}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**_SMALL, **layers, "eos_token_id": tokenizer.eos_token_id, **settings})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(10)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def _write(source: ExportSource, path: Path) -> None:
    weights = MergedWeights(source, "original", device(), with_adapter=False)
    file = model_file(source, weights, TensorLayout(family_of(source.base.config), weights.config), "f32")
    write_model(file, source, path, lambda line, share: None)


def _by_transformers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([PROMPT])).logits[0, -1].float(), 0)


def _apart(one: torch.Tensor, other: dict[int, float] | torch.Tensor) -> float:
    """How far two programs are apart, where a token is not all but impossible."""
    likely = [n for n in range(len(one)) if one[n] > -20]
    return max(abs(float(one[n]) - float(other[n])) for n in likely)


@pytest.mark.parametrize(
    "case", [name if n < 1 else pytest.param(name, marks=pytest.mark.full) for n, name in enumerate(SETTINGS)]
)
def test_llama_cpp_computes_as_the_model(case: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    kind, settings = SETTINGS[case]
    base = _base(tmp_path / "base", kind, settings)
    source = source_with_adapter(tmp_path, str(base))
    _write(source, tmp_path / "model.gguf")
    meant = _by_transformers(AutoModelForCausalLM.from_pretrained(base).eval())
    assert _apart(meant, LlamaCpp(tmp_path / "model.gguf", 128).likely(PROMPT, 512)) < CLOSE


@pytest.mark.parametrize(
    ("case", "method"),
    [
        ("Gemma 3, another local theta", "add_rope_freq_base_swa"),
        pytest.param("Gemma 3, windows in every other layer", "add_sliding_window_pattern", marks=pytest.mark.full),
        pytest.param("Gemma 2, other caps", "add_attn_logit_softcapping", marks=pytest.mark.full),
        pytest.param("Gemma 2, another theta", "add_rope_freq_base", marks=pytest.mark.full),
        pytest.param("Llama, YaRN", "add_rope_scaling_factor", marks=pytest.mark.full),
    ],
)
def test_a_setting_that_is_lost_on_the_way_shows_in_llama_cpp(
    case: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    base = _base(tmp_path / "base", *SETTINGS[case])
    source = source_with_adapter(tmp_path, str(base))
    if method == "add_rope_scaling_factor":  # without any a YaRN could not be read at all
        monkeypatch.setattr(GGUFWriter, method, lambda self, value: self.add_float32("llama.rope.scaling.factor", 2.0))
    else:
        monkeypatch.setattr(GGUFWriter, method, lambda self, value: None)
    _write(source, tmp_path / "model.gguf")
    meant = _by_transformers(AutoModelForCausalLM.from_pretrained(base).eval())
    assert _apart(meant, LlamaCpp(tmp_path / "model.gguf", 128).likely(PROMPT, 512)) > 10 * CLOSE


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("llama", {"hidden_act": "relu"}, "computes with relu"),
        ("llama", {"mlp_bias": True}, "biases in its MLP"),
        ("llama", _rope("default", partial_rotary_factor=0.5), "a part of each head"),
        ("llama", _rope("yarn", factor=4.0, attention_factor=2.0), "YaRN of its own numbers"),
        ("llama", _rope("yarn", factor=4.0, truncate=False), "YaRN of its own numbers"),
        ("llama", _rope("dynamic", factor=4.0), "stretches its positions by 'dynamic'"),
        ("qwen3", {"head_dim": 16, "attention_bias": True}, "biases in its attention"),
        (
            "qwen2",
            _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64),
            "stretches its positions by 'llama3'",
        ),
        ("gemma", {"tie_word_embeddings": False}, "a head of its own"),
        ("gemma2", {**_WINDOW, "final_logit_softcapping": None}, "does not cap its logits"),
        ("gemma2", {**_WINDOW, "query_pre_attn_scalar": 20}, "scales its attention"),
        ("gemma3_text", {**_WINDOW, "final_logit_softcapping": 30.0}, "caps its logits, as llama.cpp does not"),
        ("gemma3_text", {**_WINDOW, "use_bidirectional_attention": True}, "looks ahead"),
        ("gemma3_text", {**_WINDOW, "layer_types": ["full_attention"] * 2}, "has no windows"),
        (
            "gemma3_text",
            {**_WINDOW, "layer_types": ["full_attention", "sliding_attention"]},
            "sliding-window layers",
        ),
        (
            "gemma3_text",
            {
                **_WINDOW,
                "rope_parameters": {
                    "sliding_attention": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0},
                    "full_attention": {"rope_type": "default", "rope_theta": 10_000.0},
                },
            },
            "stretches positions within its windows",
        ),
    ],
)
def test_what_no_file_can_tell_llama_cpp_is_refused_by_name(kind: str, settings: dict[str, Any], said: str) -> None:
    from transformers import AutoConfig

    layers = {"num_hidden_layers": len(settings.get("layer_types", (1, 2)))}
    config = AutoConfig.for_model(kind, **{**_SMALL, **layers, **settings})
    with pytest.raises(ExportError, match=said):
        refuse_settings(family_of(config.to_dict()).arch, config, 16)
