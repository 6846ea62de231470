"""How large an export gets, for a person, before it is made. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.sizes import show_bytes

if TYPE_CHECKING:
    from core.export.shared.options import ExportOptions
    from core.runs.store import Run

# Bytes a number, of what is written.
_BYTES = {"float16": 2.0, "bfloat16": 2.0, "float32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "f32": 4.0}
# README, settings, curves.
FILES_BYTES = 100_000


def adapter_size(run: Run, options: ExportOptions) -> str:
    """Of the adapter alone: 'About 2.1 MB'."""
    return f"About {show_bytes(_adapter_bytes(run, options) + FILES_BYTES)}"


def model_size(run: Run, options: ExportOptions, kind: str) -> str:
    """Of a whole model in numbers of `kind`, 'auto' being the base's own, and of the adapter where that stays apart.

    Raises ModelError where the base is not where it was.
    """
    from core.basemodel.find import find_model
    from core.export.shared.source import folder_of

    found = find_model(run.recipe().model, run.base_revision())
    own = str(found.config.get("dtype") or found.config.get("torch_dtype"))
    if kind == "auto":
        kind = own if own in ("float16", "bfloat16") else "bfloat16"
    settings = sum(file.stat().st_size for file in folder_of(run, options.part).glob("*.json"))
    size = found.parameters * _BYTES[kind] + FILES_BYTES + settings
    size += _adapter_bytes(run, options) if options.adapter_only else 0
    return f"About {show_bytes(size)}, in {kind}."


def _adapter_bytes(run: Run, options: ExportOptions) -> int:
    from core.export.shared.source import folder_of

    return sum(file.stat().st_size for file in folder_of(run, options.part).iterdir() if file.is_file())
