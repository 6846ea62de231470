"""What is remembered of operators makes the same trace as asking them each time, and never stands in for values."""

from __future__ import annotations

import pytest
import torch

from core.memory import trace as traces
from core.memory.meta_model import meta_model
from core.memory.op_cache import OpCache
from core.memory.tensor_counter import Counter
from core.memory.trace import MicroBatch, trace
from core.recipe import make_recipe
from core.step.optimizer import OPTIMIZERS

SIZES = {"vocab_size": 640, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}


def _plainly(func, args, kwargs):
    return func(*args, **kwargs)


@pytest.mark.parametrize("family", ["llama", "gemma2", "falcon"])
def test_the_trace_is_the_same_without_it(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe({"lora.rank": 4})
    shapes = [MicroBatch(2, 40, 60), MicroBatch(2, 40, 60)]

    def traced():
        model = meta_model(
            {"model_type": family, **SIZES}, recipe.quantization, recipe.lora, torch.float32, torch.float32
        )
        return trace(model, shapes, "cpu", OPTIMIZERS["adamw"], "half")

    remembered = [traced(), traced()]
    monkeypatch.setattr(traces, "_made", _plainly)
    assert remembered == [traced()] * 2


def test_views_real_tensors_and_types_that_are_equal_are_told_apart() -> None:
    memo = OpCache()
    aten = torch.ops.aten
    given = torch.empty(4, 6, device="meta")
    for _ in range(2):  # a view that does not say that it is one
        view = memo(aten._unsafe_view.default, (given, [6, 4]), {})
        assert view.untyped_storage()._cdata == given.untyped_storage()._cdata
    real = torch.tensor([1.0, 2.0])
    for value in (1.0, 3.0):
        assert memo(aten.mul.Tensor, (real * value, real), {}).tolist() == [value, 4 * value]
    whole = torch.empty(3, dtype=torch.long, device="meta")
    assert memo(aten.mul.Scalar, (whole, 2), {}).dtype == torch.long
    assert memo(aten.mul.Scalar, (whole, 2.0), {}).dtype == torch.float32
    assert memo(aten.mul.Scalar, (whole, 2), {}).dtype == torch.long


def test_what_is_made_again_is_counted_again() -> None:
    counter = Counter(OpCache())
    with counter:
        for _ in range(2):
            kept = [torch.empty(1024, device="meta") * 2 for _ in range(3)]
            assert counter.now == 3 * 4096
            del kept
            assert counter.now == 0
