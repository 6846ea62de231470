"""The fused layer in 16 bits against the formula in fp64: nowhere further from it than PEFT's own layer is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from torch.autograd.graph import saved_tensors_hooks

from core.model.load import keep_quantisation_exact
from core.step.adapter_dtype import compute_in_input_dtype
from core.step.fused_lora import Fused, fuse

WIDE, NARROW, TOKENS, RANK = 192, 128, (3, 70), 8


class _Net(torch.nn.Module):
    """Two quantised layers, one after the other, the first with a bias."""

    def __init__(self, dtype: torch.dtype, kind: str = "nf4", double: bool = True) -> None:
        super().__init__()
        self.is_loaded_in_4bit = True
        settings = {"compute_dtype": dtype, "quant_type": kind, "compress_statistics": double}
        self.up, self.down = Linear4bit(NARROW, WIDE, **settings), Linear4bit(WIDE, NARROW, bias=False, **settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x))


def _adapted(dtype: torch.dtype, adapters: torch.dtype, kind: str = "nf4", double: bool = True, **settings: Any) -> Any:
    torch.manual_seed(1)
    net = _Net(dtype, kind, double).to(dtype).to("cpu")  # which quantises
    lora = {"r": RANK, "lora_alpha": 12, "target_modules": ["up", "down"], "init_lora_weights": False, **settings}
    model = get_peft_model(net, LoraConfig(**lora))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(adapters)
    keep_quantisation_exact(model)
    return model.train()


def _both(*dtypes: torch.dtype, **settings: Any) -> tuple[Any, Any]:
    """The same model with PEFT's layers and with fused ones."""
    theirs = _adapted(*dtypes, **settings)
    ours = copy.deepcopy(theirs)
    assert fuse(ours).layers == 2
    for model in (theirs, ours):
        compute_in_input_dtype(model)
    return theirs, ours


def _given(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """What goes in, and the gradient of what comes out."""
    torch.manual_seed(2)
    return torch.randn(*TOKENS, NARROW).to(dtype).requires_grad_(), torch.randn(*TOKENS, NARROW).to(dtype)


def _step(model: Any, x: torch.Tensor, gradient: torch.Tensor) -> dict[str, torch.Tensor]:
    """What comes out, and all gradients, by name."""
    x, y = x.detach().clone().requires_grad_(), None
    model.zero_grad()
    y = model(x)
    y.backward(gradient)
    found = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    return {"y": y.detach(), "x": x.grad, **found}


def _exact(layer: Any, x: torch.Tensor, gradient: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """One layer by its formula in fp64: y = W x + b + s B A (x, some of it dropped and the rest scaled up)."""
    base = layer.get_base_layer()
    weight = dequantize_4bit(base.weight.data, base.weight.quant_state).double()
    x = x.detach().double().requires_grad_()
    a, b = (pair["default"].weight.detach().to(base.compute_dtype).double() for pair in (layer.lora_A, layer.lora_B))
    a, b = a.requires_grad_(), b.requires_grad_()
    y = x @ weight.t() + (0 if base.bias is None else base.bias.double())
    y = y + layer.scaling["default"] * ((x * mask) @ a.t() @ b.t())
    y.backward(gradient.double())
    return {"y": y.detach(), "x": x.grad, "lora_A.default.weight": a.grad, "lora_B.default.weight": b.grad}


def _errors(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> dict[str, float]:
    """The root mean square error of each, as a share of the value's own."""
    return {
        name: float(((found[name].double() - value).square().mean() / value.square().mean()).sqrt())
        for name, value in exact.items()
    }


# Half the spacing of bf16's numbers: sums in another order differ by less.
ROUNDING = torch.finfo(torch.bfloat16).eps / 2
HALVES = [
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.float32),
]


@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("stabilised", [False, True], ids=["alpha / rank", "rsLoRA"])
@pytest.mark.parametrize("dtypes", HALVES, ids=str)
@pytest.mark.parametrize("name", ["up", "down"], ids=["bias", "no bias"])
def test_it_is_no_further_from_the_formula_than_pefts(
    name: str, dtypes: tuple[torch.dtype, torch.dtype], stabilised: bool, dropout: float
) -> None:
    theirs, ours = (
        model.base_model.model.get_submodule(name)
        for model in _both(*dtypes, use_rslora=stabilised, lora_dropout=dropout)
    )
    assert ours.scaling["default"] == pytest.approx(12 / RANK**0.5 if stabilised else 12 / RANK)
    torch.manual_seed(4)
    x = torch.randn(*TOKENS, ours.in_features).to(dtypes[0])
    gradient = torch.randn(*TOKENS, ours.out_features).to(dtypes[0])
    rounding = torch.finfo(dtypes[0]).eps / 2
    of = []
    for layer, drop in ((theirs, torch.nn.functional.dropout), (ours, torch.native_dropout)):
        torch.manual_seed(9)
        mask = drop(torch.ones_like(x), dropout, True) if dropout else torch.ones_like(x)
        mask = mask[0] if isinstance(mask, tuple) else mask
        kept = (mask != 0).double() / (1 - dropout)
        torch.manual_seed(9)
        of.append(_errors(_step(layer, x, gradient), _exact(layer, x, gradient, kept)))
    their_errors, our_errors = of
    for each, error in our_errors.items():
        assert error <= their_errors[each], each
        assert error <= 2 * rounding, each
    assert all(each.grad.dtype == dtypes[1] for each in ours.parameters() if each.grad is not None)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False], ids=["double", "single"])
def test_in_fp32_it_is_the_formula_whatever_the_quantisation(kind: str, double: bool) -> None:
    _, ours = _both(torch.float32, torch.float32, kind=kind, double=double)
    layer = ours.base_model.model.up
    x, gradient = torch.randn(*TOKENS, NARROW), torch.randn(*TOKENS, WIDE)
    errors = _errors(_step(layer, x, gradient), _exact(layer, x, gradient, torch.ones(1)))
    assert max(errors.values()) < 1e-6


@pytest.mark.parametrize("dtypes", HALVES, ids=str)
def test_what_comes_in_may_lie_in_memory_in_any_way(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    _, ours = _both(*dtypes)
    x, gradient = _given(dtypes[0])
    expected = _step(ours, x, gradient)
    turned = x.detach().permute(2, 1, 0).contiguous().permute(2, 1, 0)
    thinned = torch.stack([gradient, gradient], -1)[..., 0]
    assert not turned.is_contiguous() and not thinned.is_contiguous()
    found = _step(ours, turned, thinned)
    assert max(_errors(found, {name: value.double() for name, value in expected.items()}).values()) < ROUNDING
    assert ours(torch.empty(0, NARROW, dtype=dtypes[0])).shape == (0, NARROW)


def test_the_gradient_of_a_sum_which_is_one_number_in_memory_is_taken() -> None:
    _, ours = _both(torch.bfloat16, torch.bfloat16)
    x, _ = _given(torch.bfloat16)
    expected = _step(ours, x, torch.ones(*TOKENS, NARROW, dtype=torch.bfloat16))
    ours.zero_grad()
    ours(x).sum().backward()
    assert _errors({"x": x.grad}, {"x": expected["x"].double()})["x"] < ROUNDING


def _calls(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with each pass that bitsandbytes' own layer does, as PEFT's layers call it."""
    seen: list[int] = []
    forward = Linear4bit.forward

    def counted(self: Any, x: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return forward(self, x)

    monkeypatch.setattr(Linear4bit, "forward", counted)
    return seen


def test_everything_else_takes_pefts_way_and_is_its_very_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation, a disabled adapter, a merged one, several, autocast, another dtype, one adapter for each row."""
    theirs, ours = _both(torch.bfloat16, torch.bfloat16)
    x, _ = _given(torch.bfloat16)
    seen = _calls(ours, monkeypatch)

    def is_pefts(**kwargs: Any) -> bool:
        seen.clear()
        expected = theirs(x, **kwargs)
        alone = len(seen)
        found = ours(x, **kwargs)
        return alone == 2 and len(seen) == 4 and torch.equal(found, expected)

    ours(x)
    assert not seen
    with theirs.disable_adapter(), ours.disable_adapter():
        assert is_pefts()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert is_pefts()
    for model in (theirs, ours):
        model.eval()
    assert is_pefts()
    with torch.no_grad():
        assert is_pefts(adapter_names=["default"] * 2 + ["__base__"])
    for model in (theirs, ours):
        model.train()
        model.add_adapter("second", LoraConfig(r=2, target_modules=["up", "down"]))
        model.base_model.set_adapter(["default", "second"])
        model.to(torch.bfloat16)
    assert is_pefts()
    for model in (theirs, ours):
        model.base_model.set_adapter("default")
        model.merge_adapter()
    assert is_pefts()


def test_what_comes_in_another_dtype_goes_pefts_way(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = _both(torch.bfloat16, torch.bfloat16)
    x = _given(torch.bfloat16)[0].float()
    seen = _calls(ours, monkeypatch)
    assert torch.equal(ours(x), theirs(x))
    assert len(seen) == 4


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_bias": True}], ids=["DoRA", "a bias in the adapter"])
@pytest.mark.filterwarnings("ignore:.lora_bias=True")
def test_adapters_of_another_kind_are_left_alone(settings: dict[str, Any]) -> None:
    model = _adapted(torch.bfloat16, torch.float32, **settings)
    assert fuse(model, "cuda") == Fused()


def test_on_apples_gpu_nothing_is_fused() -> None:
    assert fuse(_adapted(torch.float16, torch.float32), "mps") == Fused()


def test_a_layer_that_computes_in_another_dtype_than_it_was_quantised_from_is_left_alone() -> None:
    model = _adapted(torch.bfloat16, torch.bfloat16)
    model.base_model.model.up.get_base_layer().compute_dtype = torch.float16
    assert fuse(model).layers == 1


def test_no_more_is_kept_for_the_backward_pass_than_pefts_keeps() -> None:
    """With dropout less: a byte a number for what was dropped, and not the rest of it in 16 bits too."""

    def kept(model: Any) -> int:
        storages: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            held.append(tensor)
            return tensor

        held: list[torch.Tensor] = [x]
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            model(x).sum().backward()
        own = {each.untyped_storage()._cdata for each in (x, *model.parameters())}
        return sum(size for storage, size in storages.items() if storage not in own)

    x, _ = _given(torch.bfloat16)
    tokens = TOKENS[0] * TOKENS[1]
    theirs, ours = _both(torch.bfloat16, torch.bfloat16)
    inner = 2 * tokens * RANK * 2
    assert kept(ours) == inner + tokens * WIDE * 2 <= kept(theirs)
    theirs, ours = _both(torch.bfloat16, torch.bfloat16, lora_dropout=0.1)
    mask = tokens * (NARROW + WIDE)
    assert kept(ours) == inner + tokens * WIDE * 2 + mask < kept(theirs)


@pytest.fixture
def dequantises_into(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """bitsandbytes' operator of its CUDA backend that dequantises into a given tensor, on a CPU."""
    library = torch.library.Library("bitsandbytes", "FRAGMENT")

    def into(packed: Any, absmax: Any, block: Any, kind: Any, shape: Any, dtype: Any, out: torch.Tensor) -> None:
        out.copy_(torch.ops.bitsandbytes.dequantize_4bit(packed, absmax, block, kind, shape, dtype))

    library.impl("dequantize_4bit.out", into, "CPU")
    yield
    library._destroy()


@pytest.mark.parametrize("reentrant", [None, False, True], ids=["no checkpointing", "checkpointing", "re-entrant"])
@pytest.mark.usefixtures("dequantises_into")
def test_layers_share_the_memory_of_a_weight_and_none_reads_anothers(reentrant: bool | None) -> None:
    from torch.utils.checkpoint import checkpoint

    apart = _adapted(torch.bfloat16, torch.bfloat16, lora_dropout=0.2)
    together = copy.deepcopy(apart)
    fuse(apart)
    shared = fuse(together, "cuda").shared
    assert shared is not None and shared.size == NARROW * WIDE * 2
    place = shared.on(torch.device("cpu"))
    x, gradient = _given(torch.bfloat16)

    def through(model: Any, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = model(x) if reentrant is None else checkpoint(model, x, use_reentrant=reentrant)
            place.fill_(255)  # not a number, in bf16
        return x

    torch.manual_seed(5)
    expected = _step_of(lambda x: through(apart, x), apart, x, gradient)
    torch.manual_seed(5)
    found = _step_of(lambda x: through(together, x), together, x, gradient)
    for name, value in expected.items():
        assert torch.isfinite(value).all() and torch.equal(found[name], value), name
    assert shared.on(torch.device("cpu")).data_ptr() == place.data_ptr()


def _step_of(run: Any, model: Any, x: torch.Tensor, gradient: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.detach().clone().requires_grad_()
    y = run(x)
    y.backward(gradient)
    return {"y": y.detach(), "x": x.grad, **{n: p.grad for n, p in model.named_parameters() if p.grad is not None}}
