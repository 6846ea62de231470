"""The fused LoRA layer on a card: PEFT's losses, the predicted memory, and no weight in the place of another."""

from pathlib import Path
from typing import Any

import pytest
import torch

from core.runs.store import Run
from core.runs.tail import Tail
from core.step.fused_gain import keep_gain
from core.workspace import Workspace
from tests.gpu.in_process import losses, peaks, settings, train
from tests.gpu_standin.machine import AMPERE, TURING, Machine


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


def _told(run: Run) -> str:
    """What the run said about it."""
    said = [event["message"] for event in Tail(run.dir / "events.jsonl").read()]
    return next((each for each in said if each.startswith("train.fused_lora")), "")


def _is_as_predicted(run: Run) -> None:
    assert run.status().state == "finished", run.status().message
    counted, predicted = peaks(run)
    assert counted == pytest.approx(predicted, rel=0.01)


@pytest.mark.parametrize(
    "more",
    [
        {},
        pytest.param({"lora.dropout": 0.2, "train.gradient_checkpointing": "on"}, marks=pytest.mark.full),
        pytest.param(
            {"lora.scaling": "rank_stabilised", "lora.rank": 32, "train.gradient_checkpointing": "off"},
            marks=pytest.mark.full,
        ),
    ],
    ids=["plain", "dropout, checkpointing", "rank-stabilised, no checkpointing"],
)
@pytest.mark.parametrize(
    "card",
    [pytest.param(each, marks=pytest.mark.machine(Machine(cards=(each,))), id=each.name) for each in (AMPERE, TURING)],
)
def test_a_run_learns_what_it_learns_with_pefts_layer(
    card: Any, more: dict[str, Any], workspace: Workspace, tiny: Path, rows_file: Path
) -> None:
    """With dropout too: both draw the same numbers."""
    theirs, ours = (
        train(workspace, settings(tiny, rows_file, **{"train.fused_lora": wanted, **more})) for wanted in ("off", "on")
    )
    for run in (theirs, ours):
        _is_as_predicted(run)
    assert _told(ours) == "train.fused_lora: on, because you set it."
    assert losses(ours) == pytest.approx(losses(theirs), rel=0.01)
    assert losses(ours) != losses(theirs)


def test_a_card_that_was_measured_uses_it_by_itself(workspace: Workspace, tiny: Path, rows_file: Path) -> None:
    run = train(workspace, settings(tiny, rows_file))
    assert _told(run) == (
        "train.fused_lora: off, because whether it is faster on this GPU has not been measured; `python launch.py "
        "bench train` measures it."
    )
    keep_gain(workspace, AMPERE.name, "bfloat16", 1.1)
    run = train(workspace, settings(tiny, rows_file))
    _is_as_predicted(run)
    assert _told(run).startswith("train.fused_lora: on, because `python launch.py bench train` measured 1.10 times")
    assert run.plan()["chosen"]["fused_lora"] is True


def _fused(tiny: Path) -> tuple[Any, Any]:
    """The tiny model on the card, in training mode with fused layers, and the memory that they share."""
    from core.basemodel.find import find_model
    from core.model.load import attach_lora, load_base
    from core.recipe import LoraSettings, QuantizationSettings
    from core.step.fused_lora import fuse
    from core.system.hardware import device

    base = load_base(find_model(str(tiny)), QuantizationSettings(), device())
    model = attach_lora(base, LoraSettings(rank=4), torch.bfloat16).train()
    return model, fuse(model, "cuda").shared


def test_generation_multiplies_a_row_by_bitsandbytes_own_kernel(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitsandbytes.backends.cuda import ops

    products: list[int] = []
    real = ops._gemm_4bit_kernel_impl

    def counted(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        products.append(x.numel() // x.shape[-1])
        return real(x, *rest)

    monkeypatch.setattr(ops, "_gemm_4bit_kernel_impl", counted)
    model, _ = _fused(tiny)
    ids = torch.tensor([[5]], device="cuda")
    model(ids)
    assert not products
    with torch.no_grad():
        model.eval()(ids)
    assert products == [1] * 14


def test_two_streams_do_not_share_the_memory_of_a_weight(tiny: Path) -> None:
    """The stand-in raises an error where one stream writes what another still reads."""
    model, shared = _fused(tiny)
    layer = model.get_submodule("base_model.model.model.layers.0.mlp.up_proj")
    x = torch.randn(20, layer.in_features, device="cuda", dtype=torch.bfloat16)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    here = layer(x)
    with torch.cuda.stream(side):
        there, its_own = layer(x), shared.on(x.device)
    torch.cuda.current_stream().wait_stream(side)
    assert torch.equal(here, there)
    assert shared.on(x.device).data_ptr() != its_own.data_ptr()
    side.wait_stream(torch.cuda.current_stream())
