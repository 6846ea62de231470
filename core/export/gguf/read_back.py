"""Reads a GGUF back with the `gguf` package and holds its tensors beside those that it was written from."""

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader

from core.export.gguf.writer import AdapterTensor, ModelFile
from core.export.shared.destination import Broken

# The largest error of one rounding beside the largest number of its block of 32 (Q8_0) or the number itself.
_ROUNDING = {
    GGMLQuantizationType.F32: 0.0,
    GGMLQuantizationType.F16: 2**-11,
    GGMLQuantizationType.BF16: 2**-8,
    GGMLQuantizationType.Q8_0: 0.5 / 127 + 2**-11,
}
# Below it fp16 has no more digits to spare: its smallest number.
_SMALLEST = 2**-24


@dataclass(frozen=True)
class ReadBack:
    """How many tensors were read back, and how far the farthest number is from what was meant."""

    tensors: int
    largest_difference: float


def read_back(path: Path, file: ModelFile) -> ReadBack:
    """Compare each tensor of the model at `path`. Raises Broken where one is not there or off by more than rounding."""
    found = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    if set(found) != {entry.name for entry in file.entries}:
        raise Broken("The GGUF does not contain the tensors written to it. The export was deleted.")
    largest = 0.0
    for entry in file.entries:
        held, meant = found[entry.name], file.value(entry)
        values = gguf.quants.dequantize(held.data, held.tensor_type).reshape(meant.shape)
        off = np.abs(values - meant)
        if held.tensor_type != entry.type or (off > _allowed(meant, entry.type)).any():
            raise Broken(f"The GGUF does not give {entry.name} back as written. The export was deleted.")
        largest = max(largest, float(off.max()))
    return ReadBack(len(found), largest)


def _allowed(meant: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    scale = np.abs(meant)
    if kind == GGMLQuantizationType.Q8_0:
        scale = np.repeat(scale.reshape(-1, 32).max(axis=1), 32).reshape(meant.shape)
    return scale * _ROUNDING[kind] + (_SMALLEST if kind != GGMLQuantizationType.F32 else 0.0)


def read_back_adapter(path: Path, meant: list[AdapterTensor]) -> ReadBack:
    """Compare each tensor of the adapter at `path`, which is in fp32. Raises Broken where one is not as it was."""
    found = {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}
    same = set(found) == {each.name for each in meant}
    if not same or any(not np.array_equal(found[each.name].reshape(each.values.shape), each.values) for each in meant):
        raise Broken("The GGUF does not give the adapter back as written. The export was deleted.")
    return ReadBack(len(found), 0.0)
