"""What the engine's tests share: a tiny random model, its tokenizer, and the model in 4 bits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import chat_rows, tiny_model, write_jsonl


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tokenizer(tiny: Path) -> Any:
    """Its tokenizer, ready to train with."""
    from core.basemodel.find import find_model
    from core.data.rendering.template import Template
    from core.model.load import load_tokenizer
    from core.recipe import DataSettings

    loaded = load_tokenizer(find_model(str(tiny)))
    Template(loaded, DataSettings())
    return loaded


@pytest.fixture
def adapted(tiny: Path) -> Any:
    """It in NF4 on the CPU, with fresh adapters of rank 4."""
    import torch

    from core.basemodel.find import find_model
    from core.model.load import attach_lora, load_base
    from core.recipe import LoraSettings, QuantizationSettings
    from core.system.hardware import Device

    base = load_base(find_model(str(tiny)), QuantizationSettings(), Device("cpu", "CPU", 2**34, 2**33))
    return attach_lora(base, LoraSettings(rank=4, alpha=8), torch.float32)


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty short conversations."""
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", chat_rows(40))


@pytest.fixture
def unlimited_afterwards() -> Iterator[None]:
    """The run's memory limit is put on this very process: take it off again."""
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)
