"""Embeddings that stay in RAM while the layers are on a GPU; checked without one."""

from __future__ import annotations

import torch
from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM

from core.step.embedding_offload import keep_embeddings_in_ram


def test_embeddings_in_ram_stay_there_and_the_model_computes_where_its_layers_are() -> None:
    """accelerate moves a whole model to the device as training begins; transformers asks where its first weight is."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32, **size)).eval().requires_grad_(False)
    ids = torch.tensor([[1, 5, 9]])
    rules = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    before = model.generate(ids, **rules)
    assert keep_embeddings_in_ram(model) == 32 * 16 * 4
    assert torch.equal(model.generate(ids, **rules), before)
    model.to("meta")
    assert model.lm_head.weight.is_meta
    assert model.device.type == "meta"
    assert not model.get_input_embeddings().weight.is_meta
    assert model.get_input_embeddings()(ids).shape == (1, 3, 16)


def test_embeddings_that_do_more_than_look_up_stay_with_the_layers() -> None:
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
    rules = {"vocab_size": 32, "num_key_value_heads": 1, "tie_word_embeddings": False}
    model = GemmaForCausalLM(GemmaConfig(**size, **rules)).requires_grad_(False)
    assert keep_embeddings_in_ram(model) == 0
    model.to("meta")
    assert model.get_input_embeddings().weight.is_meta
