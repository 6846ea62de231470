"""A base opened from its store is, tensor by tensor, what transformers and bitsandbytes make of its own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from core.basemodel.find import find_model
from core.basemodel.stores import list_stores
from core.model import load
from core.model.load import load_base
from core.model.stored import Stores
from core.settings import QuantizationSettings
from core.system.hardware import Device
from tests.core.model.store_reference import holds_what_it_should, is_one_model, reference
from tests.tiny import tiny_model

CPU = Device("cpu", "a CPU", 2**33, 2**33, 0)
NESTED, PLAIN, FP4 = ({"bits": 4, "type": kind, "double": double} for kind, double in
                      (("nf4", True), ("nf4", False), ("fp4", True)))  # fmt: skip
# In the words of the architectures; GPT-2's layers are Conv1D, and its head is its embeddings.
OTHERS: dict[str, dict[str, Any]] = {
    "tied": {"tie_word_embeddings": True},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    # A mixture that keeps a buffer in its files (e_score_correction_bias).
    "deepseek_v3": {
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "first_k_dense_replace": 1,
        "n_group": 1, "topk_group": 1, "q_lora_rank": 32, "kv_lora_rank": 16, "qk_rope_head_dim": 16,
        "qk_nope_head_dim": 16, "v_head_dim": 16,
    },
    # Attention in some layers, a convolution in others.
    "lfm2": {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3},
}  # fmt: skip


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stores:
    monkeypatch.setenv("NIBBLE_STORES", "always")
    (tmp_path / "stores").mkdir()
    return Stores(tmp_path / "stores", mock.Mock())


def _base(folder: Path, kind: str) -> Path:
    return tiny_model(folder, "llama" if kind == "tied" else kind, **OTHERS.get(kind, {}))


@pytest.mark.parametrize("kind", ["llama", "tied", "gpt2", "qwen3_moe", "mixtral", "deepseek_v3", "lfm2"])
@pytest.mark.parametrize(
    "settings", [NESTED, PLAIN, FP4, {"bits": 8}, {"bits": 16}], ids=["nested", "plain", "fp4", "8", "16"]
)
def test_a_store_holds_what_the_libraries_make(
    kind: str, settings: dict[str, Any], stores: Stores, tmp_path: Path
) -> None:
    folder = _base(tmp_path / "base", kind)
    expected = reference(folder, settings, torch.float32)
    for turn in ("made", "opened"):
        torch.manual_seed(0)
        model = load_base(find_model(str(folder)), QuantizationSettings(**settings), CPU, stores=stores)
        assert torch.equal(torch.get_rng_state(), torch.manual_seed(0).get_state()), f"{turn}: no number is drawn"
        expected.requires_grad_(False)
        holds_what_it_should(model, expected, settings)
        is_one_model(model, expected)
    assert len(list_stores(stores.folder)) == 1
    said = [call.args[0] for call in stores.report.call_args_list]  # type: ignore[attr-defined]
    assert len(said) == 2 and "is kept" in said[0] and "was loaded from its quantised copy" in said[1]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3_moe"])
def test_a_store_in_bf16_answers_as_its_files_do(kind: str, stores: Stores, tmp_path: Path) -> None:
    """The same forward and backward pass, to the bit."""
    found = find_model(str(_base(tmp_path / "base", kind)))
    ids = torch.arange(3, 40)[None]
    results = []
    with mock.patch.object(load, "dtype_for", lambda *_: (torch.bfloat16, "")):
        for kept in (None, stores, stores):
            model = load_base(found, QuantizationSettings(), CPU, stores=kept)
            assert model.dtype == torch.bfloat16
            hidden = model.get_input_embeddings()(ids).detach().requires_grad_()
            loss = model(inputs_embeds=hidden, labels=ids).loss
            results.append((loss, torch.autograd.grad(loss, hidden)[0]))
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0]) and torch.equal(gradient, results[0][1])


def test_a_head_in_the_files_that_is_not_the_embeddings_stays_its_own(stores: Stores, tmp_path: Path) -> None:
    """Though the config ties them: transformers then warns, and ties nothing."""
    from safetensors.torch import load_file, save_file

    folder = _base(tmp_path / "base", "tied")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    expected = reference(folder, NESTED, torch.float32).requires_grad_(False)
    assert not torch.equal(expected.lm_head.weight, expected.model.embed_tokens.weight)
    for _ in range(2):
        model = load_base(find_model(str(folder)), QuantizationSettings(**NESTED), CPU, stores=stores)
        holds_what_it_should(model, expected, NESTED)
        is_one_model(model, expected)
