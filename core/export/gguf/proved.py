"""Writes the GGUFs of an export and proves them: of a whole model, of an adapter, or of base and adapter apart."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from core.export.adapter.write import adapter_bytes
from core.export.gguf.card import gguf_name
from core.export.gguf.families import TensorLayout, family_of
from core.export.gguf.read_back import read_back, read_back_adapter
from core.export.gguf.writer import adapter_tensors, model_file, write_adapter, write_model
from core.export.merged.weights import MergedWeights
from core.export.proof.report import Verified
from core.export.proof.verify import verify
from core.export.shared.destination import refuse_full_disk, writing
from core.export.shared.options import ExportOptions, Say
from core.export.shared.source import ExportSource
from core.system.hardware import device

SPARE_BYTES = 60_000_000
# The rounding that a GGUF's answers may show, as a dtype; q8_0 is coarser than any, and only reported.
PRECISION = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "q8_0": "bfloat16"}
NOT_ASKED = {
    "prompts": 0,
    "equal": 0,
    "largest_logit_difference": None,
    "against": "the adapter that it was written from",
    "because": "an adapter GGUF works only with a GGUF of its base model",
}


@contextmanager
def gguf_written(
    source: ExportSource,
    options: ExportOptions,
    say: Say,
    with_model: bool = True,
    beside: Callable[[Path, str, str | None, int], None] = lambda folder, model, adapter, context: None,
) -> Iterator[tuple[Path, Verified]]:
    """The folder with the GGUF in it, proved; what the block adds to the folder comes along.

    With `options.adapter_only` the adapter is a GGUF of its own, and `with_model` says whether the base lies beside it.
    `beside` writes what else is proved, given the names of model and adapter (None where that is merged in) and the
    model's context.
    """
    family = family_of(source.base.config)
    say("Reading the base model and the adapter.", None)
    apart = options.adapter_only
    onto = "original" if apart else options.onto
    weights = MergedWeights(source, onto, device())
    layout = TensorLayout(family, weights.config)
    adapter, model = gguf_name(source, "adapter"), gguf_name(source, options.gguf_type)
    meant = list(adapter_tensors(weights, layout, source.alpha)) if apart else []
    base = MergedWeights(source, onto, device(), with_adapter=False) if apart else weights
    file = model_file(source, base, layout, options.gguf_type)
    refuse_full_disk(options.out, file.bytes * with_model + adapter_bytes(source) * apart + SPARE_BYTES)
    verified: Verified = dict(NOT_ASKED)
    with writing(options.out) as folder:
        artefact = {"format": options.to, "folder": str(folder), "file": model, "context": layout.context}
        if apart:
            write_adapter(weights, layout, source, folder / adapter)
            verified["tensors"] = read_back_adapter(folder / adapter, meant).tensors
            artefact["over"] = adapter
        if with_model:
            write_model(file, source, folder / model, say)
            say("Reading the export back.", None)
            read = read_back(folder / model, file)
            beside(folder, model, adapter if apart else None, layout.context)
            precision, strict = PRECISION[options.gguf_type], options.gguf_type != "q8_0"
            verified = verify(source, artefact, onto, precision, say, strict)
            verified |= {"tensors": read.tensors + len(meant), "largest_tensor_difference": read.largest_difference}
        yield folder, verified
