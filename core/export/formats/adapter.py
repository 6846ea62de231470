"""The adapter, as PEFT's folder and the zip of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.export.formats.format import Artefact, ExportFormat
from core.export.formats.sizes import adapter_size

if TYPE_CHECKING:
    from core.export.proof.readers.reader import Reader
    from core.export.shared.options import ExportOptions, Say
    from core.export.shared.source import ExportSource


def _write(source: ExportSource, options: ExportOptions, say: Say) -> dict[str, Any]:
    from core.export.adapter.write import adapter_bytes, adapter_card, write_adapter, zip_folder
    from core.export.card.model_card import write_card
    from core.export.proof.verify import verify
    from core.export.shared.destination import ExportError, refuse_full_disk, writing

    packed = options.out.with_name(f"{options.out.name}.zip")
    if packed.exists():
        raise ExportError(f"The file {packed} already exists. Choose another folder, or move the file first.")
    refuse_full_disk(options.out, adapter_bytes(source))
    with writing(options.out) as folder:
        say("Writing the adapter.", None)
        write_adapter(source, folder)
        artefact = {"format": "adapter", "folder": str(folder)}
        verified = verify(source, artefact, "dequantised", "float32", say, strict=not source.is_mixture)
        write_card(source, folder, adapter_card(source), verified)
    say("Creating the zip.", None)
    zip_folder(options.out, packed)
    return {"verified": verified, "zip": str(packed)}


def _open(artefact: Artefact) -> Reader:
    from core.export.proof.readers.transformers import open_adapter

    return open_adapter(artefact)


ADAPTER = ExportFormat(
    name="adapter",
    title="Adapter",
    what="What was learned, and no more: a small folder and its zip in PEFT's format, with tokenizer, chat template, "
    "settings and a model card. The base is loaded beside it.",
    for_whom="For Python with transformers and peft, for servers that take adapters, and to come back to Nibble.",
    write=_write,
    open=_open,
    size=lambda run, options: f"{adapter_size(run, options)} in the folder, and as much in the zip.",
    merges=False,
)
