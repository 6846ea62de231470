"""A mixture's experts in four bits compute what their dequantised weights would, forwards and backwards."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Params4bit

from core.basemodel.find import find_model
from core.errors import ModelError
from core.model import moe
from core.model.load import attach_lora, load_adapter, load_base, quantised
from core.settings import LoraSettings, QuantizationSettings
from core.system.hardware import Device
from tests.tiny import tiny_model

CPU = Device("cpu", "a CPU", 2**33, 2**33, 0)
MIXTURES: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    # Biases, gates and ups in turns, and the matrices the other way round.
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
}


def _config(kind: str) -> Any:
    from transformers import AutoConfig

    sizes = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 256}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return AutoConfig.for_model(kind, **sizes, **heads, **ends, **MIXTURES[kind])


@pytest.mark.parametrize("kind", MIXTURES)
def test_the_answers_are_those_of_transformers_own_way(kind: str) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(_config(kind)).eval()
    ids = torch.randint(3, 128, (2, 24))
    with torch.no_grad():
        model.set_experts_implementation("eager")
        theirs = model(input_ids=ids).logits
        model.set_experts_implementation(moe.NAME)
        ours = model(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.fixture
def packed(tmp_path: Path) -> Any:
    folder = tiny_model(tmp_path / "base", "qwen3_moe")
    return load_base(find_model(str(folder)), QuantizationSettings(), CPU)


def _experts(model: Any) -> Any:
    return next(module for _, module in moe.experts_of(model))


def test_experts_are_loaded_in_four_bits(packed: Any) -> None:
    fused = _experts(packed)
    for name in ("gate_up_proj", "down_proj"):
        weight = getattr(fused, name)
        assert isinstance(weight, Params4bit) and weight.data.dtype == torch.uint8
        # Four bits a number, and their constants: 8 bits a block of 64, and 32 a block of 256 of those.
        assert weight.data.numel() == moe.shape_of(weight).numel() // 2
        assert weight.quant_state.nested
    held, every = quantised(packed)
    routers = sum(p.numel() for name, p in packed.named_parameters() if name.endswith("mlp.gate.weight"))
    assert every - held == routers > 0


def test_products_are_those_of_the_dequantised_weights(packed: Any) -> None:
    fused = _experts(packed)
    torch.manual_seed(1)
    hidden = torch.randn(9, 64, requires_grad=True)
    chosen, shares = torch.randint(0, 4, (9, 2)), torch.rand(9, 2)
    chosen[chosen == 3] = 0  # an expert that nobody asks
    found = fused(hidden, chosen, shares)
    gradient = torch.autograd.grad(found.square().sum(), hidden)[0]
    first, second = (moe.dequantised(getattr(fused, name)) for name in ("gate_up_proj", "down_proj"))
    expected = torch.zeros(9, 64)
    for token in range(9):
        for expert, share in zip(chosen[token].tolist(), shares[token], strict=True):
            gate, up = (first[expert] @ hidden[token]).chunk(2)
            expected[token] = expected[token] + share * (second[expert] @ (torch.nn.functional.silu(gate) * up))
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(gradient, torch.autograd.grad(expected.square().sum(), hidden)[0], atol=1e-5)


def test_all_at_once_is_one_after_the_other() -> None:
    torch.manual_seed(2)
    rows = torch.randn(24, 32, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(4, 16, 32, dtype=torch.bfloat16)
    ends = torch.tensor([5, 5, 20, 24], dtype=torch.int32)

    def both(trained: bool) -> list[torch.Tensor]:
        held = weight.clone().requires_grad_(trained)
        way = moe._trained if trained else moe._Product.apply
        result = way(rows, held, ends, True)
        return [result, *torch.autograd.grad(result.float().square().sum(), [rows, held] if trained else [rows])]

    for trained in (False, True):
        one_by_one = both(trained)
        with mock.patch.object(moe, "at_once", moe.suits_groups):
            together = both(trained)
        for a, b in zip(one_by_one, together, strict=True):
            assert torch.allclose(a.float(), b.float(), rtol=0.02, atol=0.05)


def test_a_grouped_product_is_for_many_rows_in_bf16() -> None:
    rows, weight = torch.randn(24, 32, dtype=torch.bfloat16), torch.randn(4, 16, 32, dtype=torch.bfloat16)
    assert moe.suits_groups(rows, weight)
    assert not moe.suits_groups(rows.float(), weight)
    assert not moe.suits_groups(rows[:3], weight)
    assert not moe.suits_groups(rows[:, :30], weight[..., :30])


def test_adapters_of_experts_add_what_peft_would_add_to_the_weights(packed: Any) -> None:
    from peft.tuners.lora.layer import ParamWrapper

    adapted = attach_lora(packed, LoraSettings(rank=4, alpha=8), torch.float32)
    wrappers = [module for module in adapted.modules() if isinstance(module, ParamWrapper)]
    assert {each.parameter_name for each in wrappers} == {"gate_up_proj", "down_proj"}, "and no router"
    torch.manual_seed(3)
    for each in wrappers:
        torch.nn.init.normal_(each.lora_B["default"].weight, std=0.1)
    ids = torch.randint(3, 300, (2, 12))
    with torch.no_grad():
        found = adapted(input_ids=ids).logits
        deltas = {each: each.get_delta_weight("default") for each in wrappers}
        plain = {each: each.get_base_layer() for each in wrappers}
        for each, delta in deltas.items():
            held = plain[each]._parameters[each.parameter_name]
            plain[each]._parameters[each.parameter_name] = torch.nn.Parameter(
                moe.dequantised(held) + delta, requires_grad=False
            )
        with mock.patch.object(ParamWrapper, "_activate_lora", lambda *_: nullcontext()):
            expected = adapted(input_ids=ids).logits
    assert (found - expected).abs().max() < 1e-4


def test_an_adapter_of_experts_is_saved_as_peft_writes_it_and_loaded_again(packed: Any, tmp_path: Path) -> None:
    adapted = attach_lora(packed, LoraSettings(rank=4), torch.float32)
    torch.manual_seed(4)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.randint(3, 300, (1, 12))
    with torch.no_grad():
        before = adapted.eval()(input_ids=ids).logits
    adapted.save_pretrained(tmp_path / "adapter")
    again = load_base(find_model(str(tmp_path / "base")), QuantizationSettings(), CPU)
    with torch.no_grad():
        after = load_adapter(again, tmp_path / "adapter").eval()(input_ids=ids).logits
    assert torch.equal(before, after)


@pytest.mark.parametrize("settings", [{"dropout": 0.1}, {"dora": True}, {"init": "pissa"}])
def test_what_peft_does_not_know_for_experts_is_refused(packed: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"mixture of experts.*lora\.targets to attention"):
        attach_lora(packed, LoraSettings(rank=4, **settings), torch.float32)


def test_attention_alone_leaves_the_experts_as_they_are(packed: Any) -> None:
    adapted = attach_lora(packed, LoraSettings(rank=4, dropout=0.1, targets="attention"), torch.float32)
    names = {name.split(".")[-4] for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj"}


@pytest.mark.parametrize("width", [32, 80, 96, 160, 64])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_rows_that_are_no_whole_blocks_are_unpacked_as_they_were_packed(width: int, kind: str) -> None:
    """bitsandbytes 0.50.2 alone gets rows wrong that are no multiple of 64 long: see core/model/bnb_cpu_blocks.py."""
    torch.manual_seed(5)
    layer = Linear4bit(width, 48, bias=False, quant_type=kind, compute_dtype=torch.float32)
    original = torch.randn(48, width)
    layer.weight = Params4bit(original.clone(), quant_type=kind, requires_grad=False).to("cpu")
    rows = torch.randn(3, width)
    blocks = original.reshape(-1, 64)
    flat = Params4bit(blocks.clone(), quant_type=kind, requires_grad=False).to("cpu")
    expected = moe.dequantised(flat).reshape(48, width)
    assert torch.allclose(layer(rows), rows @ expected.T, atol=1e-5)
    assert torch.equal(moe.dequantised(layer.weight), expected)
