"""A merged model answers as the chat that it was merged from: each family, each kind of adapter, each way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.export.merged.weights import MergedWeights
from core.export.merged.write import write_merged
from core.export.shared.source import ExportSource
from core.system.hardware import device
from tests.core.export.made import same_answers, source_with_adapter
from tests.tiny import tiny_model

# The bar, in fp32.
CLOSE = 1e-4
FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt_neox", "opt", "falcon", "gpt2"]
IN_EVERY_RUN = {("llama", "original"), ("gpt_neox", "dequantised")}
KINDS: dict[str, dict[str, Any]] = {
    "dora": {"lora.dora": True},
    "rank-stabilised": {"lora.scaling": "rank_stabilised"},
    "pissa": {"lora.init": "pissa", "lora.targets": "attention"},
    "head and embeddings": {"lora.extra_modules": ["head", "embeddings"]},
    "norms": {"lora.extra_modules": ["norm"]},
    "single quantisation": {"quantization.double": False},
    "fp4": {"quantization.type": "fp4"},
    "16 bits": {"quantization.bits": 16},
}


def _merge(source: ExportSource, out: Path, onto: str = "dequantised", **options: Any) -> Path:
    out.mkdir()
    weights = MergedWeights(source, onto, device())  # type: ignore[arg-type]
    write_merged(source, weights, out, torch.float32, lambda line, share: None, **options)
    return out


def _check(source: ExportSource, out: Path, onto: str = "dequantised") -> None:
    found = same_answers(source, {"format": "merged", "folder": str(out), "parameters": 0}, onto)
    assert found["equal"] == found["prompts"] == 4
    assert found["largest_logit_difference"] < CLOSE


def _cases() -> list[Any]:
    """Each family both ways; two of them in every run."""
    cases = [(family, onto) for family in FAMILIES for onto in ("dequantised", "original")]
    return [each if each in IN_EVERY_RUN else pytest.param(*each, marks=pytest.mark.full) for each in cases]


@pytest.mark.parametrize(("family", "onto"), _cases())
def test_a_family_merged_answers_as_its_reference(family: str, onto: str, tmp_path: Path) -> None:
    source = source_with_adapter(tmp_path, str(tiny_model(tmp_path / "base", family)))
    _check(source, _merge(source, tmp_path / "out", onto), onto)


@pytest.mark.parametrize(
    "kind", [each if each == "dora" else pytest.param(each, marks=pytest.mark.full) for each in KINDS]
)
def test_every_kind_of_adapter_is_merged_right(kind: str, tiny: Path, tmp_path: Path) -> None:
    source = source_with_adapter(tmp_path, str(tiny), **KINDS[kind])
    _check(source, _merge(source, tmp_path / "out"))
