"""A folder that passes for a model: a config, and weights that are zeros."""

from __future__ import annotations

import json
import struct
from pathlib import Path


def write_weights(path: Path, shape: tuple[int, ...] = (2, 2), whole: bool = True) -> None:
    size = 4
    for side in shape:
        size *= side
    header = json.dumps({"a.weight": {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * (size if whole else size - 1))


def model_folder(path: Path, config: object = None, files: tuple[str, ...] = ("model.safetensors",)) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "llama"} if config is None else config))
    for name in files:
        write_weights(path / name)
    return path
