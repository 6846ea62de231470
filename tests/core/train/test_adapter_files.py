"""An adapter in training is written as PEFT writes it, byte for byte, and nothing of the base is read for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core.model.load import attach_lora
from core.recipe import LoraSettings
from core.train.adapter_files import write_adapter
from tests.core.model.tiny_adapted import adapted_to, base_of
from tests.tiny import tiny_model

CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "LoRA": ("llama", 4, {}),
    "LoRA, 8 bits": ("llama", 8, {}),
    "DoRA": ("llama", 4, {"dora": True}),
    "PiSSA": ("llama", 4, {"init": "pissa"}),
    "modules trained in full": ("llama", 4, {"extra_modules": ["embeddings", "head", "model.norm"]}),
    "tied embeddings, trained": ("gemma2", 16, {"extra_modules": ["embeddings"]}),
    "experts": ("qwen3_moe", 4, {}),
}


class _OnlyOf(TorchDispatchMode):
    """Inside, any operator on a tensor that does not share its memory with one of `allowed` is an error."""

    def __init__(self, allowed: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.allowed = {each.untyped_storage()._cdata for each in allowed}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        read = [tuple(each.shape) for each in given if each.untyped_storage()._cdata not in self.allowed]
        assert not read, f"{func} reads a tensor {read[0]} of the base"
        return func(*args, **(kwargs or {}))


def _model(tmp_path: Path, case: str) -> Any:
    architecture, bits, lora = CASES[case]
    model = adapted_to(tiny_model(tmp_path / "base", architecture), bits, **lora)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()
    return model


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", CASES)
def test_the_files_are_those_that_peft_writes(tmp_path: Path, case: str) -> None:
    model = _model(tmp_path, case)
    model.save_pretrained(tmp_path / "peft")
    with _OnlyOf(each for each in model.parameters() if each.requires_grad):
        write_adapter(model, tmp_path / "ours")
    assert _files(tmp_path / "ours") == _files(tmp_path / "peft")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(_files(tmp_path / "ours"))


def test_peft_alone_reads_the_base(tmp_path: Path) -> None:
    """Or else the test above would show nothing."""
    model = _model(tmp_path, "LoRA")
    with (
        pytest.raises(AssertionError, match="of the base"),
        _OnlyOf(each for each in model.parameters() if each.requires_grad),
    ):
        model.save_pretrained(tmp_path / "peft")


def test_embeddings_that_were_resized_are_saved_as_peft_saves_them(tmp_path: Path) -> None:
    """They are not in the base's own files, so whoever opens the adapter needs them."""
    base = base_of(tiny_model(tmp_path / "base"), 16)
    base.resize_token_embeddings(600)
    model = attach_lora(base, LoraSettings(rank=4, alpha=8), torch.float32)
    model.save_pretrained(tmp_path / "peft")
    write_adapter(model, tmp_path / "ours")
    assert _files(tmp_path / "ours") == _files(tmp_path / "peft")
    assert (tmp_path / "ours" / "adapter_model.safetensors").stat().st_size > 600 * 64 * 4
