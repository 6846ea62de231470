"""Rules for GPUs that can be checked without one: the allocator's limits, and what their kernels keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.integrations import sdpa_attention

from core.memory.measured_overhead import MeasuredOverhead
from core.memory.meta_kernels import kernels_of
from core.model.attention import repeat_keys
from core.step.embedding_offload import keep_embeddings_in_ram
from core.system import process
from core.system.hardware import Device
from core.system.process import child_environment
from core.train import memory_limit

CARD = Device("cuda", "Card", 24 * 10**9, 20 * 10**9)


def test_the_allocators_limit_is_the_budget_less_what_it_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (0, CARD.total_bytes))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 9))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, index: set_to.append(share))
    monkeypatch.setattr(
        memory_limit, "constants_of", lambda card, capability: MeasuredOverhead(400_000_000, 0, measured=True)
    )
    memory_limit.enforce(10 * 10**9, CARD, 0)
    memory_limit.enforce(10 * 10**9, CARD, 1_600_000_000)
    memory_limit.enforce(30 * 10**9, CARD, 0)
    assert set_to == pytest.approx([9.6 / 24, 8.0 / 24, 1.0])


class _Called(TorchDispatchMode):
    """The names of the attention kernels that are called within it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, called: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(called)
        if "scaled_dot_product" in name:
            self.names.append(name.split("_scaled_dot_product_")[1].split(".")[0])
        return called(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("kind", "dtype", "masked", "kernel"),
    [
        ("cuda", torch.bfloat16, False, "flash_attention"),
        ("cuda", torch.bfloat16, True, "efficient_attention"),
        ("cuda", torch.float16, False, "efficient_attention"),
        ("mps", torch.float16, False, "flash_attention"),
    ],
)
@pytest.mark.parametrize("key_heads", [8, 2])
def test_attention_is_traced_as_the_kernel_that_would_run(
    kind: str, dtype: torch.dtype, masked: bool, kernel: str, key_heads: int
) -> None:
    query = torch.empty(1, 8, 32, 64, dtype=dtype, device="meta")
    key = torch.empty(1, key_heads, 32, 64, dtype=dtype, device="meta")
    mask = torch.empty(1, 1, 32, 32, dtype=torch.bool, device="meta") if masked else None
    with kernels_of(kind), _Called() as called:
        answer = torch.nn.functional.scaled_dot_product_attention(
            query, key, key, attn_mask=mask, is_causal=not masked, enable_gqa=key_heads != 8
        )
    assert answer.shape == query.shape
    assert called.names == [kernel]


def test_key_heads_are_repeated_once_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdpa_attention, "use_gqa_in_sdpa", sdpa_attention.use_gqa_in_sdpa)  # so that it is put back
    key = torch.empty(1, 2, 32, 64, device="meta")
    assert sdpa_attention.use_gqa_in_sdpa(None, key, key)
    repeat_keys()
    assert not sdpa_attention.use_gqa_in_sdpa(None, key, key)


@pytest.mark.parametrize(("kind", "kept"), [("cuda", torch.bool), ("cpu", torch.bfloat16)])
def test_dropout_is_traced_as_the_kernel_that_would_run(kind: str, kept: torch.dtype) -> None:
    numbers = torch.empty(4, 8, dtype=torch.bfloat16, device="meta", requires_grad=True)
    saved: list[torch.dtype] = []

    def save(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.dtype)
        return tensor

    with kernels_of(kind), torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        dropped = torch.nn.Dropout(0.1)(numbers)
    assert set(saved) == {kept}
    dropped.sum().backward()
    assert numbers.grad is not None and numbers.grad.shape == numbers.shape
    with kernels_of(kind):
        assert torch.nn.Dropout(0.0)(numbers).shape == torch.nn.Dropout(0.1).eval()(numbers).shape
        assert torch.equal(torch.nn.functional.dropout(torch.ones(3), 0.0), torch.ones(3))


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


@pytest.mark.parametrize(
    ("release", "theirs", "grows"),
    [("6.8.0-generic", {}, True), ("6.8.0", {"PYTORCH_ALLOC_CONF": "x"}, False), ("5.15-microsoft-WSL2", {}, False)],
)
def test_the_gpu_allocators_memory_grows_where_it_can_and_nobody_has_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, release: str, theirs: dict[str, str], grows: bool
) -> None:
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(process.sys, "platform", "linux")
    monkeypatch.setattr(process.platform, "release", lambda: release)
    assert ("PYTORCH_CUDA_ALLOC_CONF" in child_environment()) == grows
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "backend:native")
    assert child_environment()["PYTORCH_CUDA_ALLOC_CONF"] == "backend:native"
