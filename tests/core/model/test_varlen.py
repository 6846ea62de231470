"""Packed rows by `varlen_attn`, its kernel replaced by a plain loop over conversations, against SDPA with a mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from core.data.batches import packed_batch, padded_batch
from core.memory.meta_model import meta_model
from core.memory.trace import MicroBatch, trace
from core.model import varlen
from core.model.varlen import NAME, use_varlen, varlen_suits
from core.recipe import LoraSettings, QuantizationSettings, make_recipe
from core.step import packing
from core.step.optimizer import OPTIMIZERS
from core.step.packing import settle_packing
from tests.core.data.rendered_rows import rendered_rows
from tests.core.model.tiny_adapted import adapted_to
from tests.tiny import tiny_model

SIZES = {
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 3,
}
WINDOWED = {"sliding_window": 8}
# Lengths of conversations: two rows of several, and a padded end.
LENGTHS = (120, 60, 50, 41, 30, 9, 1)


class Kernel:
    """What torch's `varlen_attn` documents that it computes, one conversation after the other."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        starts: torch.Tensor,
        key_starts: torch.Tensor,
        longest: int,
        longest_key: int,
        *,
        scale: float | None,
        window_size: tuple[int, int],
        enable_gqa: bool,
    ) -> torch.Tensor:
        self.calls += 1
        left, right = window_size
        assert starts.dtype == torch.int32 and torch.equal(starts, key_starts) and enable_gqa and right == 0
        ends = starts.tolist()
        assert longest == longest_key == max(end - start for start, end in zip(ends, ends[1:], strict=False))
        groups = query.shape[1] // key.shape[1]
        answers = []
        for start, end in zip(ends, ends[1:], strict=False):
            q, k, v = (each[start:end].transpose(0, 1) for each in (query, key, value))
            scores = q @ k.repeat_interleave(groups, 0).transpose(1, 2) * (scale or query.shape[-1] ** -0.5)
            places = torch.arange(end - start)
            back = places[:, None] - places[None]
            unseen = (back < 0) | (back > left if left >= 0 else back < 0)
            weights = scores.masked_fill(unseen, float("-inf")).softmax(-1)
            answers.append((weights @ v.repeat_interleave(groups, 0)).transpose(0, 1))
        return torch.cat(answers)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found = Kernel()
    monkeypatch.setattr(varlen, "varlen_attn", found)
    monkeypatch.setattr(varlen, "DTYPES", (torch.float32,))
    return found


def _model(kind: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **settings}), dtype=torch.float32)


def _outcome(model: Any, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The logits, and the gradients of all weights for a loss that weighs each logit differently."""
    model.zero_grad()
    inputs = {key: value for key, value in batch.items() if key in ("input_ids", "position_ids", "attention_mask")}
    logits = model(**inputs, use_cache=False).logits
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    (logits * weights).sum().backward()
    return [logits, *(each.grad for each in model.parameters() if each.grad is not None)]


FAMILIES = [
    ("llama", {}),
    ("mistral", WINDOWED),
    ("qwen3", {"head_dim": 16}),
    ("gemma3_text", {**WINDOWED, "head_dim": 16, "layer_types": ["sliding_attention", "full_attention"] * 2}),
    ("phi3", {}),
    ("gpt_neox", {}),
]


@pytest.mark.parametrize(("kind", "settings"), FAMILIES, ids=[kind for kind, _ in FAMILIES])
def test_packed_rows_get_what_a_mask_gives_them(kind: str, settings: dict[str, Any], kernel: Kernel) -> None:
    if "layer_types" in settings:
        settings = {**settings, "num_hidden_layers": 4}
    model, batch = _model(kind, **settings), packed_batch(rendered_rows(*LENGTHS))
    assert batch["input_ids"].shape[0] > 1
    expected = _outcome(model, batch)
    assert use_varlen(model)
    found = _outcome(model, batch)
    assert kernel.calls == model.config.num_hidden_layers
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= 2e-6 * theirs.abs().max(), "but for fp32's rounding"


def test_a_window_is_seen_and_not_only_the_conversation(kernel: Kernel) -> None:
    batch = packed_batch(rendered_rows(*LENGTHS))
    narrow, wide = (_model("mistral", sliding_window=window) for window in (8, 400))
    use_varlen(narrow), use_varlen(wide)
    assert not torch.allclose(_outcome(narrow, batch)[0], _outcome(wide, batch)[0], atol=1e-3)


@pytest.mark.parametrize("batch", [padded_batch(rendered_rows(30, 20)), packed_batch(rendered_rows(300))])
def test_rows_of_one_conversation_go_on_as_before(batch: dict[str, torch.Tensor], kernel: Kernel) -> None:
    model = _model("llama")
    expected = _outcome(model, batch)
    use_varlen(model)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(_outcome(model, batch), expected, strict=True))
    assert kernel.calls == 0


@pytest.mark.parametrize("settings", [{"head_dim": 12}, {"head_dim": 264}, {"attention_dropout": 0.5}], ids=str)
def test_what_the_kernel_does_not_compute_gets_the_mask(settings: dict[str, Any], kernel: Kernel) -> None:
    model, batch = _model("llama", **settings).train(), packed_batch(rendered_rows(*LENGTHS))
    torch.manual_seed(5)
    expected = _outcome(model, batch)
    use_varlen(model)
    torch.manual_seed(5)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(_outcome(model, batch), expected, strict=True))
    assert kernel.calls == 0


def test_a_prompt_is_answered_as_before(kernel: Kernel) -> None:
    model = _model("llama").eval()
    prompt = {"input_ids": torch.arange(3, 20)[None], "attention_mask": torch.ones(1, 17, dtype=torch.long)}
    expected = model.generate(**prompt, max_new_tokens=5, do_sample=False)
    use_varlen(model)
    assert torch.equal(model.generate(**prompt, max_new_tokens=5, do_sample=False), expected)
    assert kernel.calls == 0


def test_it_is_for_cards_with_flash_attention_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "flash_is_built", lambda: True)
    assert varlen_suits("cuda", torch.bfloat16)
    assert not varlen_suits("cuda", torch.float16)  # below compute capability 8.0
    assert not varlen_suits("cpu", torch.bfloat16)
    monkeypatch.setattr(varlen, "flash_is_built", lambda: False)
    assert not varlen_suits("cuda", torch.bfloat16)
    monkeypatch.undo()
    monkeypatch.setattr(varlen, "varlen_attn", lambda query, key, value, is_causal: None)  # as in torch 2.10
    assert not varlen_suits("cuda", torch.bfloat16)


@pytest.fixture
def adapted(tmp_path: Any) -> Any:
    return adapted_to(tiny_model(tmp_path / "base", "llama"))


def _settled(model: Any, monkeypatch: pytest.MonkeyPatch, **train: Any) -> packing.Packing:
    monkeypatch.setattr(packing, "varlen_suits", lambda kind, dtype: True)
    settings = make_recipe({f"train.{key}": value for key, value in train.items()}).train
    return settle_packing(model, settings, "cuda", torch.bfloat16)


def test_a_run_takes_it_where_it_works(adapted: Any, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    settled = _settled(adapted, monkeypatch)
    assert (settled.packed, settled.varlen) == (True, True)
    assert "varlen_attn" in settled.note and kernel.calls
    assert adapted.get_base_model().config._attn_implementation == NAME


def test_a_kernel_that_fails_is_told_and_left(adapted: Any, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")

    monkeypatch.setattr(varlen, "varlen_attn", fails)
    settled = _settled(adapted, monkeypatch)
    assert (settled.packed, settled.varlen) == (True, False)
    assert "only supports Ampere" in settled.note and "mask" in settled.note
    assert adapted.get_base_model().config._attn_implementation == "sdpa"


def test_a_kernel_that_mixes_conversations_is_not_used(
    adapted: Any, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mixing(query: Any, key: Any, value: Any, starts: Any, *rest: Any, **named: Any) -> torch.Tensor:
        everything = torch.tensor([0, query.shape[0]], dtype=torch.int32)
        return kernel(query, key, value, everything, everything, query.shape[0], query.shape[0], **named)

    monkeypatch.setattr(varlen, "varlen_attn", mixing)
    settled = _settled(adapted, monkeypatch)
    assert (settled.packed, settled.varlen) == (True, False)
    assert "see each other" in settled.note


def test_a_model_none_of_whose_layers_suits_keeps_the_mask(
    tmp_path: Any, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted_to(tiny_model(tmp_path / "base", "llama", head_dim=12))
    settled = _settled(model, monkeypatch)
    assert (settled.packed, settled.varlen) == (True, False)
    assert "none of its layers can do without a mask" in settled.note and kernel.calls == 0


@pytest.mark.parametrize("train", [{"attention": "sdpa"}, {"packing": "off"}], ids=str)
def test_a_person_can_switch_it_off(
    train: dict[str, str], adapted: Any, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = _settled(adapted, monkeypatch, **train)
    assert not settled.varlen
    assert settled.packed is ("packing" not in train)
    assert adapted.get_base_model().config._attn_implementation == "sdpa" and kernel.calls == 0


@pytest.mark.parametrize("width", [2048, 2044])
def test_the_plan_counts_a_mask_in_every_layer_or_none(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept for the backward pass: width² numbers of 2 bytes a layer; and once what layers make them of, of 1 byte."""
    monkeypatch.setattr(varlen, "flash_is_built", lambda: True)

    def kept(attention: str, layers: int) -> int:
        heads = {"num_key_value_heads": 4}  # fewer would be repeated for the kernel that takes a mask, and kept
        config = {"model_type": "llama", **SIZES, **heads, "num_hidden_layers": layers}
        half = torch.bfloat16
        model = meta_model(config, QuantizationSettings(), LoraSettings(), half, half, attention)
        shape = MicroBatch(1, width, 100, packed=True, plain=False)
        traced = trace(model, [shape], "cuda", OPTIMIZERS["paged_adamw_32bit"], "off")
        return next(phase.peak for phase in traced.phases if phase.name == "forward 1")

    rows = -(-width // 8) * 8 * width  # the kernel wants rows of a multiple of 8
    a_layer = (kept("auto", 6) - kept("auto", 3)) - (kept(NAME, 6) - kept(NAME, 3))
    assert a_layer == pytest.approx(3 * 2 * rows, rel=0.01)
    assert 3 * 2 * rows < kept("auto", 3) - kept(NAME, 3) < 3 * 2 * rows + 6 * rows
