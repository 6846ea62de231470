"""What `doctor` says of the card: its constants beside the documented ones, and its problems."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any

from bench._gpu_frame import Frame, Item, NotHere, Row, failure, row
from core.memory.measured_overhead import documented
from core.system.hardware import cuda_capability, device
from core.system.process import as_process


def measured(seed: int, frame: Frame) -> Iterator[Item]:
    """The rows of what `doctor` has measured, and one that does not hold for each problem."""
    found = _doctor()
    for problem in found["problems"]:
        yield failure("doctor", f"{problem['what']} {problem['mend']}")
    yield from frame.attempt("doctor's constants", partial(_constants, found["constants"]))
    for dtype, rate in found["constants"].get("rates", {}).items():
        yield row(f"matrix products in {dtype}", rate / 1e12, "TFLOP/s", None, None, None)


def _doctor() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = as_process("core.cli", "doctor", "--json", "--data-dir", folder)
        done = subprocess.run(**command, capture_output=True, encoding="utf-8", errors="replace")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _constants(constants: dict[str, Any]) -> list[Row]:
    if "context_bytes" not in constants:
        raise NotHere("they could not be measured, perhaps because another process used the card meanwhile.")
    known = documented(cuda_capability(device().index))
    return [
        row(f"{what}, beside the documented", constants[name] / 1e6, "MB", getattr(known, name) / 1e6, None, None)
        for name, what in (("context_bytes", "CUDA context"), ("workspace_bytes", "cuBLAS workspace"))
    ]
