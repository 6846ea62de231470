"""What is asked of an export: the format, the place, and the settings that formats have. Imports no torch."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Onto = Literal["dequantised", "original"]
Precision = Literal["auto", "float16", "bfloat16", "float32"]
GgufType = Literal["f16", "bf16", "q8_0", "f32"]
# Hears how far the export is: a line for a person, and the share that is done (0 to 1) where that is known.
Say = Callable[[str, float | None], None]


@dataclass(frozen=True)
class ExportOptions:
    """What is to be made of a run, and where. `to` is the name of a format (core/export/formats/registry.py).

    `precision` is of merged weights, `gguf_type` of a GGUF's tensors. `adapter_only`: of GGUF and Ollama, the adapter
    for a base that is there already. `part` is which of the run's adapters: '' for its last, 'best', or
    'checkpoint/<step>'.
    """

    to: str
    out: Path
    onto: Onto = "dequantised"
    precision: Precision = "auto"
    gguf_type: GgufType = "f16"
    adapter_only: bool = False
    part: str = ""


@dataclass(frozen=True)
class ExportSetting:
    """A field of ExportOptions that some formats obey, as command line and form offer it.

    `choices` are its values with their labels, the default first; a switch has none. `help` is the command line's, and
    `label` and `info` are the form's.
    """

    field: str
    flag: str
    help: str
    label: str
    info: str
    choices: dict[str, str] = dataclasses.field(default_factory=dict)


SETTINGS = (
    ExportSetting(
        "onto",
        "--onto",
        "merge into the 4-bit weights that the chat uses (default), or into the original weights",
        "Merged onto",
        "It is never rounded to 4 bits a second time.",
        {
            "dequantised": "The 4-bit weights it was trained over: answers as the chat does",
            "original": "The base's original weights: finer, but not what it was trained on",
        },
    ),
    ExportSetting(
        "precision",
        "--dtype",
        "precision of a merged model; default: same as the base model",
        "Numbers",
        "Of the merged weights.",
        {"auto": "The base's own", "bfloat16": "bfloat16", "float16": "float16", "float32": "float32"},
    ),
    ExportSetting(
        "gguf_type",
        "--type",
        "type of a GGUF's tensors",
        "Tensors",
        "How exactly the GGUF holds them.",
        {"f16": "f16", "bf16": "bf16", "q8_0": "q8_0: half the size, a little coarser", "f32": "f32"},
    ),
    ExportSetting(
        "adapter_only",
        "--adapter-only",
        "for GGUF and Ollama: the adapter alone, without the base model",
        "Base and adapter apart",
        "The adapter as a GGUF of its own, for a base in GGUF.",
    ),
)
