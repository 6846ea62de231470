"""What a GPU's attention and dropout keep is traced as the kernel that would run there; checked without one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from core.memory.meta_kernels import kernels_of
from core.model.varlen import flash_is_built


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


@pytest.mark.parametrize(
    ("sizes", "masked", "built", "kernels"),
    [
        ((192, 192, 128), False, True, ["efficient_attention"]),  # DeepSeek's: FlashAttention wants all of one size
        ((264, 264, 264), False, True, ["efficient_attention"]),
        ((64, 64, 64), False, False, ["efficient_attention"]),  # torch's wheels for Windows
        ((20, 20, 20), True, True, []),  # the maths kernel
    ],
)
def test_what_flash_attention_does_not_take_goes_to_the_next_kernel(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int, int], masked: bool, built: bool, kernels: list[str]
) -> None:
    monkeypatch.setattr("core.memory.meta_kernels.flash_is_built", lambda: built)
    query, key, value = (torch.empty(1, 4, 30, size, dtype=torch.bfloat16, device="meta") for size in sizes)
    mask = torch.empty(1, 1, 30, 30, dtype=torch.bool, device="meta") if masked else None
    with kernels_of("cuda"), _Called() as called:
        answer = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert answer.shape == (1, 4, 30, sizes[2])
    assert called.names == kernels


@pytest.mark.parametrize(("system", "built"), [("linux", True), ("win32", False)])
def test_a_plan_for_a_card_elsewhere_takes_it_to_have_this_systems_torch(
    monkeypatch: pytest.MonkeyPatch, system: str, built: bool
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr("core.model.varlen.sys.platform", system)
    assert flash_is_built() is built
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: not built)
    assert flash_is_built() is not built, "of a torch for CUDA it is known"


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_keys_that_no_kernel_spreads_are_traced_with_all_their_scores(kind: str) -> None:
    """As Falcon has them: one head for all, and nobody says so. What torch chooses on a CPU says it itself."""
    query, key = torch.empty(1, 8, 32, 64), torch.empty(1, 1, 32, 64)
    assert torch._fused_sdp_choice(query, key, key) == 0  # maths
    assert torch._fused_sdp_choice(query, query, query) != 0
    with kernels_of(kind), _Called() as called:
        answer = torch.nn.functional.scaled_dot_product_attention(*(each.to("meta") for each in (query, key, key)))
    assert answer.shape == query.shape
    assert not any("flash" in name or "efficient" in name for name in called.names)
