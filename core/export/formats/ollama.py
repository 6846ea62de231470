"""A folder for Ollama: a GGUF with a Modelfile beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.export.formats.format import Artefact, ExportFormat
from core.export.formats.sizes import model_size
from core.setup import llama_cpp

if TYPE_CHECKING:
    from pathlib import Path

    from core.export.proof.readers.reader import Reader
    from core.export.shared.options import ExportOptions, Say
    from core.export.shared.source import ExportSource


def _write(source: ExportSource, options: ExportOptions, say: Say) -> dict[str, Any]:
    from core.export.card.model_card import write_card
    from core.export.gguf.proved import gguf_written
    from core.export.ollama.modelfile import MODELFILE, command, modelfile, ollama_card

    modelfile(source, "model", None, 0)  # a template that cannot be written is said before anything else is done

    def write_modelfile(folder: Path, model: str, adapter: str | None, context: int) -> None:
        (folder / MODELFILE).write_text(modelfile(source, model, adapter, context), encoding="utf-8")

    with gguf_written(source, options, say, beside=write_modelfile) as (folder, verified):
        write_card(source, folder, ollama_card(source), verified)
    return {"verified": verified, "command": command(source)}


def _open(artefact: Artefact) -> Reader | None:
    from core.export.proof.readers.ollama import open_ollama

    return open_ollama(artefact) if llama_cpp.installed() else None


OLLAMA = ExportFormat(
    name="ollama",
    title="Ollama",
    what="A GGUF with a Modelfile: template, stop words and settings as in the chat, and one command that imports it.",
    for_whom="For Ollama, and what conversations to it.",
    write=_write,
    open=_open,
    size=lambda run, options: model_size(run, options, options.gguf_type),
    settings=("gguf_type", "adapter_only"),
    settings_of_model=("onto",),
    downloads=("*.gguf", "Modelfile"),
    needs_llama_cpp=True,
)
