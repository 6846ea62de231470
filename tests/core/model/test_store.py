"""A base opened from its store is, tensor by tensor, what transformers and bitsandbytes make of its own files."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from bitsandbytes.functional import QuantState, quantize_4bit
from bitsandbytes.nn import Params4bit
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from core.basemodel.find import find_model
from core.basemodel.stores import list_stores
from core.model import load, moe, moe_quantizer
from core.model.load import load_base
from core.model.stored import Stores
from core.settings import QuantizationSettings
from core.system.hardware import Device
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


def _reference(folder: Path, settings: dict[str, Any], dtype: torch.dtype) -> Any:
    """transformers and bitsandbytes alone; they leave experts in 16 bits."""
    bits = settings["bits"]
    config = None
    if bits == 4:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=settings["type"],
            bnb_4bit_use_double_quant=settings["double"],
            bnb_4bit_compute_dtype=dtype,
        )
    elif bits == 8:
        config = BitsAndBytesConfig(load_in_8bit=True)
    with moe_quantizer.theirs() if bits == 4 else nullcontext():
        return AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=config, dtype=dtype, device_map={"": torch.device("cpu")},
            experts_implementation=moe.NAME,
        )  # fmt: skip


def _same(found: Any, expected: Any, where: str) -> None:
    """Equal to the bit: tensors, and everything that holds them."""
    assert type(found) is type(expected), where
    if isinstance(expected, torch.Tensor):
        for each in ("dtype", "shape", "device"):
            assert getattr(found, each) == getattr(expected, each), f"{where}.{each}"
        assert found.stride() == expected.stride(), where
        a, b = (each.detach().contiguous().reshape(-1).view(torch.uint8) for each in (found.data, expected.data))
        assert torch.equal(a, b), where
        _same_fields(vars(found), vars(expected), where)
    elif isinstance(expected, QuantState):
        _same_fields(vars(found), vars(expected), where)
    elif not isinstance(expected, torch.nn.Module):
        assert found == expected, where


def _same_fields(found: dict[str, Any], expected: dict[str, Any], where: str) -> None:
    assert set(found) == set(expected), where
    for name, value in expected.items():
        _same(found[name], value, f"{where}.{name}")


def _experts(model: Any) -> set[str]:
    return {f"{name}.{weight}" for name, module in moe.experts_of(model) for weight in moe.fused_weights(module)}


def _holds_what_it_should(model: Any, expected: Any, settings: dict[str, Any]) -> None:
    ours = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    theirs = dict(expected.named_parameters(remove_duplicate=False)) | dict(
        expected.named_buffers(remove_duplicate=False)
    )
    assert list(ours) == list(theirs)
    packed = _experts(expected) if settings["bits"] == 4 else set()
    for name, tensor in theirs.items():
        if name in packed:
            _is_packed(ours[name], tensor, settings, name)
        else:
            _same(ours[name], tensor, name)
    for (name, one), (_, other) in zip(model.named_modules(), expected.named_modules(), strict=True):
        assert type(one) is type(other)
        assert getattr(one, "_is_hf_initialized", None) == getattr(other, "_is_hf_initialized", None), name
        if hasattr(other, "quant_state"):
            assert one.quant_state is one.weight.quant_state, name
            assert one.weight.module is one, name


def _is_packed(found: Any, whole: torch.Tensor, settings: dict[str, Any], name: str) -> None:
    """A fused weight of experts, as bitsandbytes packs all of it at once."""
    data, state = quantize_4bit(
        whole.data, blocksize=64, compress_statistics=settings["double"], quant_type=settings["type"]
    )
    assert isinstance(found, Params4bit) and torch.equal(found.data, data), name
    _same(found.quant_state, state, name)


def _is_one_model(model: Any, expected: Any) -> None:
    """What others read of a model besides its tensors."""
    pointers = [
        [parameter.data_ptr() for _, parameter in each.named_parameters(remove_duplicate=False)]
        for each in (model, expected)
    ]
    assert [row.index(each) for row in pointers[:1] for each in row] == [
        row.index(each) for row in pointers[1:] for each in row
    ], "what is tied there is tied here"
    for name in ("hf_device_map", "all_tied_weights_keys", "is_quantized", "dtype", "training"):
        assert getattr(model, name, None) == getattr(expected, name, None), name
    assert list(map(repr, model._weight_conversions)) == list(map(repr, expected._weight_conversions))
    for name in ("is_loaded_in_4bit", "is_loaded_in_8bit", "quantization_method"):
        assert getattr(model, name, None) == getattr(expected, name, None), name


@pytest.mark.parametrize("kind", ["llama", "tied", "gpt2", "qwen3_moe", "mixtral", "deepseek_v3", "lfm2"])
@pytest.mark.parametrize(
    "settings", [NESTED, PLAIN, FP4, {"bits": 8}, {"bits": 16}], ids=["nested", "plain", "fp4", "8", "16"]
)
def test_a_store_holds_what_the_libraries_make(
    kind: str, settings: dict[str, Any], stores: Stores, tmp_path: Path
) -> None:
    folder = _base(tmp_path / "base", kind)
    expected = _reference(folder, settings, torch.float32)
    for turn in ("made", "opened"):
        torch.manual_seed(0)
        model = load_base(find_model(str(folder)), QuantizationSettings(**settings), CPU, stores=stores)
        assert torch.equal(torch.get_rng_state(), torch.manual_seed(0).get_state()), f"{turn}: no number is drawn"
        expected.requires_grad_(False)
        _holds_what_it_should(model, expected, settings)
        _is_one_model(model, expected)
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
    expected = _reference(folder, NESTED, torch.float32).requires_grad_(False)
    assert not torch.equal(expected.lm_head.weight, expected.model.embed_tokens.weight)
    for _ in range(2):
        model = load_base(find_model(str(folder)), QuantizationSettings(**NESTED), CPU, stores=stores)
        _holds_what_it_should(model, expected, NESTED)
        _is_one_model(model, expected)
