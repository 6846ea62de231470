"""GGUF, the one file that llama.cpp and what is built on it run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.export.formats.format import Artefact, ExportFormat
from core.export.formats.sizes import adapter_size, model_size
from core.setup import llama_cpp

if TYPE_CHECKING:
    from core.export.proof.readers.reader import Reader
    from core.export.shared.options import ExportOptions, Say
    from core.export.shared.source import ExportSource
    from core.runs.store import Run


def _write(source: ExportSource, options: ExportOptions, say: Say) -> dict[str, Any]:
    from core.export.card.model_card import write_card
    from core.export.gguf.card import adapter_card, model_card
    from core.export.gguf.proved import gguf_written

    with gguf_written(source, options, say, with_model=not options.adapter_only) as (folder, verified):
        card = adapter_card if options.adapter_only else model_card
        write_card(source, folder, card(source, options.gguf_type), verified)
    return {"verified": verified}


def _open(artefact: Artefact) -> Reader | None:
    from core.export.proof.readers.llama_cpp import open_gguf

    return open_gguf(artefact) if llama_cpp.installed() else None


def _size(run: Run, options: ExportOptions) -> str:
    return f"{adapter_size(run, options)}." if options.adapter_only else model_size(run, options, options.gguf_type)


GGUF = ExportFormat(
    name="gguf",
    title="GGUF",
    what="One file for llama.cpp, with tokenizer and chat template inside.",
    for_whom="For llama.cpp, LM Studio, Jan, koboldcpp. Of the Llama, Mistral, Qwen 2 to 3 and Gemma families.",
    write=_write,
    open=_open,
    size=_size,
    settings=("adapter_only",),
    settings_of_model=("onto", "gguf_type"),
    downloads=("*.gguf",),
    needs_llama_cpp=True,
)
