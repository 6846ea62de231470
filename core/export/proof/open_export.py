"""Which program opens which kind of export for the proof: one small table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.export.gguf import llama_cpp
from core.export.proof.readers.llama_cpp import open_gguf
from core.export.proof.readers.ollama import open_ollama
from core.export.proof.readers.reader import Reader
from core.export.proof.readers.transformers import open_adapter, open_model

Artefact = dict[str, Any]
# Kinds that llama.cpp has to open.
BY_LLAMA_CPP = ("gguf", "ollama")


# By the kind of artefact (core/export/pipeline.py).
READERS: dict[str, Callable[[Artefact], Reader]] = {
    "peft": open_adapter,
    "model": open_model,
    "gguf": open_gguf,
    "ollama": open_ollama,
}


def open_export(artefact: Artefact) -> Reader | None:
    """The program that opens this export, given only where it is; None where that is llama.cpp and it is not here.

    Raises CannotRender where the program refuses what stands beside the weights.
    """
    if artefact["kind"] in BY_LLAMA_CPP and not llama_cpp.is_installed():
        return None
    return READERS[artefact["kind"]](artefact)
