"""Losses on a card are the CPU's within fp32's rounding, where both compute in fp32.

The stand-in runs the CPU's own kernels, so what may differ is the order of additions alone: the CPU has a fused LoRA
layer and another AdamW. Measured: at most 2e-7 (relative) in four steps, each as large as Adam takes them.
"""

from pathlib import Path
from typing import Any

import pytest

from core.runs.store import Run
from core.runs.tail import Tail
from core.workspace import Workspace
from tests.gpu.checks import RANDOM, ROUNDING
from tests.gpu.in_process import choose, finished, in_fp32, losses, settings, the_cpu, train
from tests.gpu_standin.install import figures
from tests.tiny import tiny_model

# LLM.int8() on CUDA takes fp16 and gives fp16, whatever the model computes in (bitsandbytes 0.50.2,
# autograd/_functions.py, MatMul8bitLt.forward), which the CPU's does not: 11 bits of mantissa.
OF_FP16 = 1e-3

# How a run may be run without its result being another: the recipe's settings, and the plan's strategy.
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as it comes": ({}, {}),
    "every second layer checkpointed": ({}, {"checkpointing": "half"}),
    "every layer checkpointed": ({}, {"checkpointing": "full"}),
    "activations offloaded": ({}, {"checkpointing": "full", "offload": True}),
    "embeddings in ordinary memory": ({}, {"embeddings_in_ram": True}),
    "one at once": ({"train.micro_batch": 1}, {}),
    "padded": ({"train.packing": "off"}, {}),
}

# What makes it another result, on both.
SETTINGS: dict[str, dict[str, Any]] = {
    "DoRA": {"lora.dora": True},
    "PiSSA": {"lora.init": "pissa"},
    "LoftQ": {"lora.init": "loftq"},
    "8 bits": {"quantization.bits": 8},
    "16 bits": {"quantization.bits": 16},
    "embeddings and head": {"lora.extra_modules": ["embeddings", "head"]},
    "AdamW in 8 bits": {"train.optimizer": "paged_adamw_8bit", "lora.rank": 64},
    "Lion": {"train.optimizer": "paged_lion_32bit", "train.learning_rate": 0.001},
    "FP4": {"quantization.type": "fp4", "quantization.double": False},
    "eager attention": {"train.attention": "eager"},
    "plain AdamW": {"train.optimizer": "adamw", "train.weight_decay": 0.1},
    "Lion in 8 bits": {"train.optimizer": "paged_lion_8bit", "train.learning_rate": 0.001, "lora.rank": 64},
    "rsLoRA on few layers": {"lora.scaling": "rank_stabilised", "lora.targets": "q_v"},
}
LONGER = ("FP4", "eager attention", "plain AdamW", "Lion in 8 bits", "rsLoRA on few layers")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture(autouse=True)
def fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    in_fp32(monkeypatch)


@pytest.fixture(scope="module")
def expected(tiny: Path, rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run on the CPU, one conversation at a time."""
    with the_cpu():
        return finished(train(Workspace.open(tmp_path_factory.mktemp("cpu") / "workspace"), _watched(tiny, rows_file)))


def _watched(model: Path, rows: Path, **more: Any) -> dict[str, Any]:
    return settings(model, rows, **{"evaluation.prompts": ["hello there"], "evaluation.max_new_tokens": 8, **more})


@pytest.mark.parametrize(("more", "strategy"), WAYS.values(), ids=WAYS)
def test_a_run_on_a_card_has_the_losses_and_replies_of_the_cpu(
    more, strategy, tiny, rows_file, workspace, expected, monkeypatch
) -> None:
    choose(monkeypatch, **strategy)
    before = figures()
    run = finished(train(workspace, _watched(tiny, rows_file, **more)))
    assert losses(run) == pytest.approx(losses(expected), rel=ROUNDING)
    for name in ("eval_loss_before", "eval_loss"):
        assert run.result()[name] == pytest.approx(expected.result()[name], rel=ROUNDING)
    assert (found := Tail(run.dir / "samples.jsonl").read()) == Tail(expected.dir / "samples.jsonl").read()
    assert len(found) == 2
    offloaded = figures().copies_put_off - before.copies_put_off
    assert (offloaded > 0) == strategy.get("offload", False)


@pytest.mark.parametrize(
    "more",
    [pytest.param(SETTINGS[name], id=name, marks=[pytest.mark.full] * (name in LONGER)) for name in SETTINGS],
)
def test_every_kind_of_adapter_base_and_optimizer_trains_as_on_the_cpu(more, tiny, rows_file, tmp_path, monkeypatch):
    _find_singular_vectors_exactly(monkeypatch)
    found, expected = _on_both(tmp_path, settings(tiny, rows_file, **more))
    close = OF_FP16 if more.get("quantization.bits") == 8 else ROUNDING
    assert losses(found) == pytest.approx(losses(expected), rel=close)
    assert found.result()["eval_loss"] == pytest.approx(expected.result()["eval_loss"], rel=close)


@pytest.mark.parametrize(
    "architecture",
    [
        "qwen3_moe",
        *(pytest.param(name, marks=pytest.mark.full) for name in ("qwen2", "gemma2", "gemma3_text", "phi3")),
        *(pytest.param(name, marks=pytest.mark.full) for name in ("gpt_neox", "opt", "falcon")),
    ],
)
def test_every_architecture_trains_as_on_the_cpu(architecture, rows_file, tmp_path) -> None:
    # OPT drops hidden states of its own accord, and each device draws other numbers.
    model = tiny_model(tmp_path / architecture, architecture, **{"dropout": 0.0} if architecture == "opt" else {})
    found, expected = _on_both(tmp_path, settings(model, rows_file))
    assert losses(found) == pytest.approx(losses(expected), rel=ROUNDING)


@pytest.mark.parametrize("strategy", [{"checkpointing": "half"}, {"checkpointing": "full", "offload": True}], ids=str)
def test_what_is_recomputed_draws_the_same_numbers(strategy, tiny, rows_file, tmp_path, randomly, monkeypatch) -> None:
    """With dropout and NEFTune's noise, which the card draws from its own generator."""
    choose(monkeypatch, **strategy)
    run = finished(train(Workspace.open(tmp_path / "workspace"), settings(tiny, rows_file, **RANDOM)))
    assert losses(run) == pytest.approx(randomly, rel=ROUNDING)


@pytest.fixture(scope="module")
def randomly(tiny: Path, rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses on the card with dropout and noise, nothing recomputed."""
    with pytest.MonkeyPatch.context() as patch:
        in_fp32(patch)
        folder = tmp_path_factory.mktemp("randomly")
        return losses(finished(train(Workspace.open(folder / "workspace"), settings(tiny, rows_file, **RANDOM))))


def _on_both(folder: Path, values: dict[str, Any]) -> tuple[Run, Run]:
    found = finished(train(Workspace.open(folder / "card"), values))
    with the_cpu():
        return found, finished(train(Workspace.open(folder / "cpu"), values))


def _find_singular_vectors_exactly(patch: pytest.MonkeyPatch) -> None:
    """`torch.svd_lowrank` starts from random numbers, and a card draws others."""
    import torch

    def exact(weight: torch.Tensor, q: int, niter: int) -> tuple[torch.Tensor, ...]:
        left, values, right = torch.linalg.svd(weight.cpu(), full_matrices=False)
        return tuple(each.to(weight.device) for each in (left[:, :q], values[:q], right[:q].T))

    patch.setattr(torch, "svd_lowrank", exact)
