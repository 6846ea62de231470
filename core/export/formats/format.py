"""What an export format is: one entry that the pipeline, the command, the form and the proof read. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.export.proof.readers.reader import Reader
    from core.export.shared.options import ExportOptions, Say
    from core.export.shared.source import ExportSource
    from core.runs.store import Run

# What the proof opens: `format`, the format's name, and what that format's `open` needs to know.
Artefact = dict[str, Any]


@dataclass(frozen=True)
class ExportFormat:
    """One format that a run can be exported to.

    `what` it is and `for_whom` are sentences for a person, and `size` says how large it gets. `write` makes the folder
    and returns `verified` and what else the answer of the command has. `open` gives the program that opens the result
    for the proof; None where that program is not installed. Both import what they need when they are called.

    `settings` are the fields of ExportOptions that it obeys, `settings_of_model` those that count only where the base
    is written too. `downloads` are the patterns of files that a browser may fetch one by one.
    """

    name: str
    title: str
    what: str
    for_whom: str
    write: Callable[[ExportSource, ExportOptions, Say], dict[str, Any]]
    open: Callable[[Artefact], Reader | None]
    size: Callable[[Run, ExportOptions], str]
    settings: tuple[str, ...] = ()
    settings_of_model: tuple[str, ...] = ()
    downloads: tuple[str, ...] = ()
    merges: bool = True
    """Whether the adapter is merged or rewritten, which not every base allows."""
    resumes: bool = False
    """Whether an export that was stopped goes on where it was."""
    needs_llama_cpp: bool = False
    """Whether llama.cpp is what opens it."""

    def takes(self, setting: str, adapter_only: bool) -> bool:
        """Whether it obeys this field of ExportOptions."""
        return setting in self.settings or (setting in self.settings_of_model and not adapter_only)
