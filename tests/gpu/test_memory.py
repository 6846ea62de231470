"""Predicted tensors against the card's own count: at most 1 % off, cuBLAS' workspaces left out on both sides.

The models are large enough for tensors to dominate: what the allocator rounds up and the scalars that a trainer keeps
are 3 to 20 kB in all.
"""

from pathlib import Path
from typing import Any

import pytest

from core.memory.measured_overhead import WORKSPACE_BYTES
from core.runs.store import Run
from core.workspace import Workspace
from tests.gpu.in_process import choose, finished, settings, train
from tests.gpu_standin.machine import TURING, Machine
from tests.tiny import tiny_model

ONE_PERCENT = 0.01
LARGER = {"vocab_size": 8192, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4}
ARCHITECTURES = (
    "qwen3_moe",
    "gemma2",
    "opt",
    "gpt_neox",
    "qwen3",
    "mistral",
    "gemma3_text",
    "phi3",
    "falcon",
    "granite",
)
AT_ONCE = ("qwen3_moe", "gemma2", "opt")

# The recipe's settings, and the plan's strategy.
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "half": ({}, {"checkpointing": "half"}),
    "full": ({}, {"checkpointing": "full"}),
    "offload": ({}, {"checkpointing": "full", "offload": True}),
    "embeddings in RAM": ({}, {"embeddings_in_ram": True}),
    "several micro-batches": ({"train.micro_batch": 2, "lora.dropout": 0.1}, {}),
    "padded": ({"train.packing": "off", "train.neftune_alpha": 5}, {}),
    "DoRA": ({"lora.dora": True}, {}),
    "PiSSA": ({"lora.init": "pissa"}, {}),
    "8 bits": ({"quantization.bits": 8}, {}),
    "16 bits": ({"quantization.bits": 16}, {}),
    "embeddings and head": ({"lora.extra_modules": ["embeddings", "head"]}, {}),
    "AdamW in 8 bits": ({"train.optimizer": "paged_adamw_8bit", "lora.rank": 64}, {}),
    "Lion": ({"train.optimizer": "paged_lion_32bit"}, {}),
    "plain AdamW": ({"train.optimizer": "adamw"}, {}),
    "eager attention": ({"train.attention": "eager"}, {}),
    "paged states": ({"lora.rank": 256}, {}),
}
LONGER = ("half", "PiSSA", "AdamW in 8 bits", "Lion", "plain AdamW", "eager attention")


def larger(folder: Path, architecture: str) -> Path:
    """A random model of some 10 MB."""
    return tiny_model(folder / architecture, architecture, **LARGER)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return larger(tmp_path_factory.mktemp("models"), "llama")


def check_predicted(folder: Path, values: dict[str, Any]) -> Run:
    """The run's tensors took at their peak what was predicted."""
    run = finished(train(Workspace.open(folder / "workspace"), {"train.max_steps": 2, **values}))
    counted, predicted = (run.result()[key]["tensors"] for key in ("peak_bytes", "predicted_peak_bytes"))
    assert counted - WORKSPACE_BYTES == pytest.approx(predicted - WORKSPACE_BYTES, rel=ONE_PERCENT)
    return run


@pytest.mark.parametrize(
    "architecture", [pytest.param(each, marks=[pytest.mark.full] * (each not in AT_ONCE)) for each in ARCHITECTURES]
)
def test_every_architectures_peak_is_the_predicted_one(architecture, rows_file, tmp_path) -> None:
    check_predicted(tmp_path, {**settings(larger(tmp_path, architecture), rows_file), "train.max_steps": 2})


@pytest.mark.parametrize(
    ("more", "strategy"),
    [pytest.param(*SETTINGS[name], id=name, marks=[pytest.mark.full] * (name in LONGER)) for name in SETTINGS],
)
def test_whatever_was_chosen_the_peak_is_the_predicted_one(
    more, strategy, llama, rows_file, tmp_path, monkeypatch
) -> None:
    choose(monkeypatch, **strategy)
    check_predicted(tmp_path, {**settings(llama, rows_file), "train.max_steps": 2, **more})


@pytest.mark.machine(Machine(cards=(TURING,)))
@pytest.mark.parametrize("more", [{}, {"train.packing": "off"}], ids=["packed", "padded"])
def test_so_it_is_in_fp16(more, llama, rows_file, tmp_path) -> None:
    check_predicted(tmp_path, {**settings(llama, rows_file), "train.max_steps": 2, **more})
