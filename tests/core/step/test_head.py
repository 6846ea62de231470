"""Heads of every kind: the loss and all gradients are those of transformers' own forward with labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from core.step.head import Head, exact_head, head_of
from core.step.loss import summed_loss

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CAPPED = {"final_logit_softcapping": 5.0, "query_pre_attn_scalar": 8, "sliding_window": 16}
# Architecture: what is special about its settings, and the head that its authors describe; None for one of its own.
HEADS: dict[str, tuple[dict[str, Any], Head | None]] = {
    "llama": ({}, Head()),
    "gpt_neox": ({}, Head()),
    "phi": ({}, Head()),  # with a bias
    "opt": ({"ffn_dim": 64, "word_embed_proj_dim": 32}, Head()),
    "granite": ({"logits_scaling": 4.0}, Head(1 / 4)),
    "granitemoe": ({"logits_scaling": 4.0, "num_local_experts": 4, "num_experts_per_tok": 2}, Head(1 / 4)),
    "hyperclovax": ({"logits_scaling": 4.0}, Head(4.0)),
    "minicpm3": (
        {
            "dim_model_base": 8,  # a quarter of its width
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
        },
        Head(1 / 4),
    ),
    "cohere": ({"logit_scale": 0.25}, Head(0.25)),
    "cohere2": ({"logit_scale": 0.25, "sliding_window": 16}, Head(0.25)),
    "falcon_h1": (
        {"lm_head_multiplier": 0.25, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
        Head(0.25),
    ),
    "gemma2": (CAPPED, Head(cap=5.0)),
    "gemma3_text": (CAPPED, Head(cap=5.0)),
    "recurrent_gemma": ({"logits_soft_cap": 5.0, "lru_width": 32, "attention_window_size": 16}, Head(cap=5.0)),
    "llama4_text": (
        {"num_local_experts": 4, "intermediate_size_mlp": 64, "no_rope_layers": [1, 1], "attention_chunk_size": 16},
        Head(),
    ),
    "bert": ({"is_decoder": True}, None),
}


def _model(architecture: str) -> Any:
    torch.manual_seed(0)
    more, _ = HEADS[architecture]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **SMALL, **more)).eval()
    weight = model.get_output_embeddings().weight
    nn.init.normal_(weight, std=0.5)  # so that a cap of 5 matters
    return model


@pytest.mark.parametrize("architecture", HEADS)
def test_loss_and_gradients_are_those_of_transformers_own_forward(architecture: str) -> None:
    model = _model(architecture)
    head = exact_head(model)
    assert head == HEADS[architecture][1]
    ids = torch.randint(3, 64, (2, 13))
    labels = ids.clone()
    labels[:, :6] = -100
    trained = list(model.parameters())
    expected = model(input_ids=ids, labels=labels, use_cache=False).loss
    wanted = torch.autograd.grad(expected, trained, allow_unused=True)
    loss = summed_loss(model, head, labels, input_ids=ids) / 14
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for found, gradient in zip(torch.autograd.grad(loss, trained, allow_unused=True), wanted, strict=True):
        assert (found is None) == (gradient is None)
        if gradient is not None:
            assert torch.allclose(found, gradient, atol=2e-6 * max(1.0, float(gradient.abs().max())), rtol=1e-4)


@pytest.mark.parametrize("architecture", HEADS)
def test_the_head_is_known_without_weights(architecture: str) -> None:
    more, head = HEADS[architecture]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(architecture, **SMALL, **more), dtype=torch.bfloat16
        )
    assert head_of(model) == head


def test_a_head_that_hides_some_tokens_is_one_of_its_own() -> None:
    """As families do whose vocabulary has tokens that are never to be generated."""
    model = _model("llama")
    real = model.forward

    def forward(*args: Any, **named: Any) -> Any:
        found = real(*args, **named)
        found.logits = found.logits.index_fill(2, torch.tensor([40]), -1e4)
        return found

    model.forward = forward
    assert head_of(model) is None and exact_head(model) is None
