"""Predicted tensors against the card's own count: at most 1 % off, cuBLAS' workspaces left out on both sides.

The models are large enough for tensors to dominate: what the allocator rounds up and the scalars that a trainer keeps
are 3 to 20 kB in all.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.gpu.checks import check_predicted, larger
from tests.gpu.in_process import choose, settings
from tests.gpu_standin.machine import TURING, Machine

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
LONGER = (
    "DoRA",
    "8 bits",
    "16 bits",
    "embeddings and head",
    "half",
    "PiSSA",
    "AdamW in 8 bits",
    "Lion",
    "plain AdamW",
    "eager attention",
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return larger(tmp_path_factory.mktemp("models"), "llama")


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
