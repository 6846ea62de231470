"""Reads a merged model's files back beside the base's: every tensor is there, and what was not changed is the same."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from core.basemodel.find import weight_files
from core.export.merged.shards import Planned
from core.export.merged.weights import MergedWeights
from core.export.proof.checks import ProofCheck
from core.export.shared.destination import Broken

NAME = "tensors of the base's files"


def read_back(weights: MergedWeights, written: list[Planned], folder: Path) -> dict[str, Any]:
    """The line of `verified.checks` for the model in `folder`. Raises Broken: a tensor is not there, or not as it was.

    Those that neither the adapter nor the quantisation changed are compared number for number, as they were `written`.
    """
    places = {key: file for file in weight_files(folder) for key in _keys(file)}
    dtypes = {each.key: each.dtype for each in written}
    check = ProofCheck(NAME, "safetensors")
    untouched = 0
    for stored in (*weights.tensors, *weights.others):
        if stored.key not in places:
            raise Broken(f"The merged model lacks {stored.key}, which the base model has. The export was deleted.")
        held = _read(places[stored.key], stored.key)
        same = held.shape == stored.shape and held.dtype == dtypes[stored.key]
        if same and not weights.is_changed(stored):
            untouched += 1
            same = torch.equal(held, weights.merged(stored).to(held.dtype))
        if not same:
            raise Broken(f"The merged model contains {stored.key} unlike the base model. The export was deleted.")
        check.of += 1
        check.equal += 1
    check.because = f"{untouched:,} that were not changed are bit-identical"
    return check.as_json()


def _keys(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as opened:
        return list(opened.keys())


def _read(file: Path, key: str) -> torch.Tensor:
    with safe_open(file, framework="pt") as opened:
        tensor: torch.Tensor = opened.get_tensor(key)
    return tensor
