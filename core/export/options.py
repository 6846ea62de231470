"""What is asked of an export: the format, the place, and how. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Format = Literal["adapter", "merged", "ollama", "gguf"]


@dataclass(frozen=True)
class ExportOptions:
    """What is to be made of a run, and where. `precision` is of merged weights, `gguf_type` of a GGUF's tensors.

    `adapter_only`: of GGUF and Ollama, the adapter for a base that is there already. `part` is which of the run's
    adapters: '' for its last, 'best', or 'checkpoint/<step>'.
    """

    to: Format
    out: Path
    onto: Literal["dequantised", "original"] = "dequantised"
    precision: Literal["auto", "float16", "bfloat16", "float32"] = "auto"
    gguf_type: Literal["f16", "bf16", "q8_0", "f32"] = "f16"
    adapter_only: bool = False
    part: str = ""
