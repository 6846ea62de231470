"""Which program opens which kind of export for the proof: one small table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.export.readers.reader import Reader
from core.export.readers.transformers import open_adapter, open_model

# By the kind of artefact (core/export/make.py); what is not in it is opened as core/export/answering.py knows.
READERS: dict[str, Callable[[dict[str, Any]], Reader]] = {"peft": open_adapter, "model": open_model}


def open_export(artefact: dict[str, Any]) -> Reader | None:
    """The program that opens this export, given only where it is; None where none is in the table."""
    opener = READERS.get(artefact["kind"])
    return opener(artefact) if opener is not None else None
