"""A model whose layers come from a file gives the numbers of the resident one, bit for bit, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.core.families import FAMILIES
from tests.core.model.stream.passes import (
    BITS,
    LAYERS,
    adapted,
    plain_steps,
    same,
    streamed,
    tokenizer_of,
    trainer_steps,
)
from tests.in_full import in_full
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of five layers."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny", num_hidden_layers=LAYERS)


@pytest.mark.parametrize("layers", [4, in_full(5)], ids="{} layers".format)
@pytest.mark.parametrize("targets", ["all-linear", "q_v"])
@pytest.mark.parametrize("bits", BITS.values(), ids=BITS)
def test_plain_peft_over_transformers(bits, targets, layers, model, tmp_path) -> None:
    expected = plain_steps(adapted(model, **bits, targets=targets))
    ours = adapted(model, **bits, targets=targets)
    streamed(ours, tmp_path, layers)
    assert same(plain_steps(ours), expected)


@pytest.mark.parametrize("bits", BITS.values(), ids=BITS)
def test_activations_may_be_kept_too(bits, model, tmp_path) -> None:
    expected = plain_steps(adapted(model, **bits), checkpointed=False)
    ours = adapted(model, **bits)
    streamed(ours, tmp_path, LAYERS)
    assert same(plain_steps(ours, checkpointed=False), expected)


@pytest.mark.parametrize("bits", BITS.values(), ids=BITS)
@pytest.mark.parametrize(
    ("lora", "more"),
    [({}, {"fused_lora": True}), ({"dropout": 0.2}, {"fused_lora": True}), ({"dropout": 0.2}, {"packed": False})],
    ids=["fused", "fused, dropout", "padded, dropout"],
)
def test_the_trainer(lora, more, bits, model, tmp_path) -> None:
    tokenizer = tokenizer_of(model)
    expected = trainer_steps(adapted(model, **bits, **lora), tokenizer, tmp_path, **more)
    ours = adapted(model, **bits, **lora)
    streamed(ours, tmp_path, LAYERS - 1)
    assert same(trainer_steps(ours, tokenizer, tmp_path, **more), expected)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_family(architecture, tmp_path) -> None:
    folder = tiny_model(tmp_path / "model", architecture, num_hidden_layers=4)
    expected = plain_steps(adapted(folder), steps=2)
    ours = adapted(folder)
    streamed(ours, tmp_path, 4)
    assert same(plain_steps(ours, steps=2), expected)


# Layers of several kinds: with convolutions, linear attention or state spaces; zamba2's share a block among them.
HYBRIDS: dict[str, dict[str, Any]] = {
    "lfm2": {"layer_types": ["conv", "conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False},
    "qwen3_next": {
        "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
        **{"head_dim": 16, "num_key_value_heads": 2, "linear_num_value_heads": 4, "linear_num_key_heads": 2},
        **{"linear_key_head_dim": 16, "linear_value_head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2},
        **{"moe_intermediate_size": 64, "shared_expert_intermediate_size": 64, "decoder_sparse_step": 1},
    },
    "jamba": {
        **{"num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1},
        **{"expert_layer_period": 2, "expert_layer_offset": 1, "use_mamba_kernels": False, "mamba_d_state": 8},
    },
    "zamba2": {
        **{"layers_block_type": ["mamba", "hybrid"] * 2, "mamba_headdim": 16, "mamba_ngroups": 1, "n_mamba_heads": 8},
        **{"mamba_d_state": 16, "num_mem_blocks": 1, "attention_head_dim": 32, "attention_hidden_size": 128},
        **{"use_mem_rope": True, "adapter_rank": 8, "chunk_size": 16},
    },
}


@pytest.mark.parametrize(
    "architecture", ["lfm2", *(pytest.param(each, marks=pytest.mark.full) for each in HYBRIDS if each != "lfm2")]
)
def test_hybrids(architecture, tmp_path) -> None:
    folder = tiny_model(tmp_path / "model", architecture, **{"num_hidden_layers": 4, **HYBRIDS[architecture]})
    expected = plain_steps(adapted(folder), steps=2)
    ours = adapted(folder)
    streamed(ours, tmp_path, 4)
    assert same(plain_steps(ours, steps=2), expected)


@pytest.mark.parametrize("bits", [4, 16])
def test_a_mixture_in_the_trainer(bits, tmp_path) -> None:
    folder = tiny_model(tmp_path / "model", "qwen3_moe", num_hidden_layers=4)
    tokenizer = tokenizer_of(folder)
    expected = trainer_steps(adapted(folder, bits=bits), tokenizer, tmp_path)
    ours = adapted(folder, bits=bits)
    streamed(ours, tmp_path, 4)
    assert same(trainer_steps(ours, tokenizer, tmp_path), expected)
