"""Every export format there is. A new one is a file beside this and its name in `FORMATS`. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.export.formats.adapter import ADAPTER
from core.export.formats.format import Artefact, ExportFormat
from core.export.formats.gguf import GGUF
from core.export.formats.merged import MERGED
from core.export.formats.ollama import OLLAMA

if TYPE_CHECKING:
    from core.export.proof.readers.reader import Reader

# In the order in which they are offered.
FORMATS: tuple[ExportFormat, ...] = (ADAPTER, MERGED, GGUF, OLLAMA)


def format_named(name: str) -> ExportFormat:
    """The format of that name, which is one of FORMATS."""
    return next(each for each in FORMATS if each.name == name)


def open_export(artefact: Artefact) -> Reader | None:
    """The program that opens this export, given only where it is; None where that program is not installed.

    Raises CannotRender where the program refuses what stands beside the weights.
    """
    return format_named(artefact["format"]).open(artefact)
