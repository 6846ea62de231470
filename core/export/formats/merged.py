"""Base and adapter as one model, in safetensors that transformers loads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.export.formats.format import Artefact, ExportFormat
from core.export.formats.sizes import model_size

if TYPE_CHECKING:
    from core.export.proof.readers.reader import Reader
    from core.export.shared.options import ExportOptions, Say
    from core.export.shared.source import ExportSource


def _write(source: ExportSource, options: ExportOptions, say: Say) -> dict[str, Any]:
    from core.export.card.model_card import write_card
    from core.export.merged.base_files import bring_along
    from core.export.merged.read_back import read_back
    from core.export.merged.weights import MergedWeights
    from core.export.merged.write import MANIFEST, merged_bytes, merged_card, planned, precision_of, write_merged
    from core.export.proof.verify import verify
    from core.export.shared.destination import refuse_full_disk, writing
    from core.system.hardware import device

    say("Reading the base model and the adapter.", None)
    weights = MergedWeights(source, options.onto, device())
    dtype, exact = precision_of(options.precision, weights.tensors), options.precision == "auto"
    refuse_full_disk(options.out, merged_bytes(weights, dtype, exact))
    with writing(options.out, goes_on=True) as folder:
        write_merged(source, weights, folder, dtype, say, exact=exact)
        beside = bring_along(source, folder)
        say("Reading the export back.", None)
        tensors = read_back(weights, planned(weights, dtype, exact), folder)
        artefact = {"format": "merged", "folder": str(folder)}
        verified = verify(source, artefact, options.onto, str(dtype).removeprefix("torch."), say)
        verified["checks"] += [tensors, *([beside] if beside["of"] or beside["because"] else [])]
        write_card(source, folder, merged_card(source, options.onto, dtype), verified)
        (folder / MANIFEST).unlink()  # only now is there nothing that a next try would go on from
    return {"verified": verified}


def _open(artefact: Artefact) -> Reader:
    from core.export.proof.readers.transformers import open_model

    return open_model(artefact)


MERGED = ExportFormat(
    name="merged",
    title="Merged model",
    what="Base and adapter as one whole model in safetensors, in 16 bits.",
    for_whom="For everything that loads a Hugging Face model: transformers, vLLM, MLX, further training and "
    "quantising.",
    write=_write,
    open=_open,
    size=lambda run, options: model_size(run, options, options.precision),
    settings=("onto", "precision"),
    resumes=True,
)
