"""One export from beginning to end: refused if it cannot be, written beside, proved, described, put in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.basemodel.architectures import needs_code
from core.basemodel.code_consent import require_agreed
from core.export.adapter import adapter_bytes, adapter_card, write_adapter, zip_folder
from core.export.destination import ExportError, refuse_full_disk, refuse_place, writing
from core.export.model_card import write_card
from core.export.options import ExportOptions
from core.export.proof.verify import Verified, verify
from core.export.source import ExportSource, find_export_source
from core.export.tokenizer_files import with_tokenizer
from core.runs.device_lock import hold
from core.runs.store import Run
from core.runs.tail import Tail
from core.workspace import Workspace

Say = Callable[[str, float | None], None]
GGUF_SPARE_BYTES = 60_000_000
# The rounding that a GGUF's answers may show, as a dtype; q8_0 is coarser than any, and only reported.
PRECISION = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "q8_0": "bfloat16"}
NOT_ASKED = {
    "prompts": 0,
    "equal": 0,
    "largest_logit_difference": None,
    "against": "the adapter that it was written from",
    "because": "an adapter GGUF works only with a GGUF of its base model",
}


def export(workspace: Workspace, run: Run, order: ExportOptions, say: Say) -> dict[str, Any]:
    """Make the export. Returns DESIGN.md's `dir, files, bytes, verified`; and `zip`, of an adapter.

    `say` gets a line for a person, and the share that is done where it is known. Raises NibbleError in one sentence;
    then nothing of the export is left, but for one that is killed: a merge goes on where it was.
    """
    refuse_place(order.out)
    subject = find_export_source(run, order.part, lambda line: say(line, None))
    if subject.is_mixture and order.to != "adapter":
        raise ExportError(
            f"{subject.base.label} is a mixture of experts, which cannot be merged or exported as GGUF here: its "
            f"files store the experts in a different form than the model uses. Export the adapter, which contains "
            f"all that was learned and loads on the same base model."
        )
    require_agreed(workspace, subject.base)
    if needs_code(subject.base.config) and order.to != "adapter":
        raise ExportError(
            f"{subject.base.label} uses its own code, which other programs would lack for a merged model or a GGUF. "
            f"Export the adapter, which contains all that was learned and loads on the same base model."
        )
    make = {"adapter": _adapter, "merged": _merged, "gguf": _gguf, "ollama": _ollama}[order.to]
    with hold(workspace, "export", run.name):  # on a GPU it needs the memory that a run or the chat may have
        result = make(with_tokenizer(subject), order, say)
    files = sorted(path for path in order.out.rglob("*") if path.is_file())
    return {
        "dir": str(order.out),
        "files": [path.relative_to(order.out).as_posix() for path in files],
        "bytes": sum(path.stat().st_size for path in files),
        **result,
    }


def _adapter(subject: ExportSource, order: ExportOptions, say: Say) -> dict[str, Any]:
    packed = order.out.with_name(f"{order.out.name}.zip")
    if packed.exists():
        raise ExportError(f"The file {packed} already exists. Choose another folder, or move the file first.")
    refuse_full_disk(order.out, adapter_bytes(subject))
    with writing(order.out) as folder:
        say("Writing the adapter.", None)
        write_adapter(subject, folder)
        artefact = {"kind": "peft", "adapter": str(folder)}
        verified = verify(subject, artefact, "dequantised", "float32", say, strict=not subject.is_mixture)
        write_card(subject, folder, adapter_card(subject, _question(subject)), verified)
    say("Creating the zip.", None)
    zip_folder(order.out, packed)
    return {"verified": verified, "zip": str(packed)}


def _merged(subject: ExportSource, order: ExportOptions, say: Say) -> dict[str, Any]:
    from core.export.base_files import bring_along
    from core.export.merge_weights import MergedWeights
    from core.export.merged import MANIFEST, merged_bytes, merged_card, planned, precision_of, write_merged
    from core.export.merged_read_back import read_back
    from core.system.hardware import device

    say("Reading the base model and the adapter.", None)
    weights = MergedWeights(subject, order.onto, device())
    dtype, exact = precision_of(order.precision, weights.tensors), order.precision == "auto"
    refuse_full_disk(order.out, merged_bytes(weights, dtype, exact))
    with writing(order.out, goes_on=True) as folder:
        write_merged(subject, weights, folder, dtype, say, exact=exact)
        beside = bring_along(subject, folder)
        say("Reading the export back.", None)
        tensors = read_back(weights, planned(weights, dtype, exact), folder)
        artefact = {"kind": "model", "folder": str(folder)}
        verified = verify(subject, artefact, order.onto, str(dtype).removeprefix("torch."), say)
        verified["checks"] += [tensors, *([beside] if beside["of"] or beside["because"] else [])]
        write_card(subject, folder, merged_card(subject, order.onto, dtype, _question(subject)), verified)
        (folder / MANIFEST).unlink()  # only now is there nothing that a next try would go on from
    return {"verified": verified}


def _gguf(subject: ExportSource, order: ExportOptions, say: Say) -> dict[str, Any]:
    from core.export.gguf.card import adapter_card, model_card

    with _gguf_written(subject, order, say) as (folder, verified):
        card = adapter_card if order.adapter_only else model_card
        write_card(subject, folder, card(subject, order.gguf_type), verified)
    return {"verified": verified}


def _ollama(subject: ExportSource, order: ExportOptions, say: Say) -> dict[str, Any]:
    from core.export.ollama.modelfile import MODELFILE, command, modelfile, ollama_card

    modelfile(subject, "model", None, 0)  # a template that cannot be written is said before anything else is done

    def write_modelfile(folder: Path, model: str, adapter: str | None, context: int) -> None:
        (folder / MODELFILE).write_text(modelfile(subject, model, adapter, context), encoding="utf-8")

    with _gguf_written(subject, order, say, write_modelfile) as (folder, verified):
        write_card(subject, folder, ollama_card(subject), verified)
    return {"verified": verified, "command": command(subject)}


@contextmanager
def _gguf_written(
    subject: ExportSource,
    order: ExportOptions,
    say: Say,
    beside: Callable[[Path, str, str | None, int], None] = lambda folder, model, adapter, context: None,
) -> Iterator[tuple[Path, Verified]]:
    """The folder with the GGUF in it, proved; what the block adds to the folder comes along.

    `beside` writes what else is proved, given the names of model and adapter (None where that is merged in) and the
    model's context. For Ollama an adapter has the base beside it, as a GGUF of its own.
    """
    from core.export.gguf.card import gguf_name
    from core.export.gguf.families import TensorLayout, family_of
    from core.export.gguf.read_back import read_back, read_back_adapter
    from core.export.gguf.writer import adapter_tensors, model_file, write_adapter, write_model
    from core.export.merge_weights import MergedWeights
    from core.system.hardware import device

    family = family_of(subject.base.config)
    say("Reading the base model and the adapter.", None)
    onto, apart = ("original" if order.adapter_only else order.onto), order.adapter_only
    weights = MergedWeights(subject, onto, device())
    layout = TensorLayout(family, weights.config)
    adapter, model = gguf_name(subject, "adapter"), gguf_name(subject, order.gguf_type)
    meant = list(adapter_tensors(weights, layout, subject.alpha)) if apart else []
    base = MergedWeights(subject, onto, device(), with_adapter=not apart)
    file = model_file(subject, base, layout, order.gguf_type)
    needs_model = not apart or order.to == "ollama"
    refuse_full_disk(order.out, file.bytes * needs_model + adapter_bytes(subject) * apart + GGUF_SPARE_BYTES)
    verified: Verified = dict(NOT_ASKED)
    with writing(order.out) as folder:
        kind = "ollama" if order.to == "ollama" else "gguf"
        artefact = {"kind": kind, "folder": str(folder), "file": model, "context": layout.context}
        if apart:
            write_adapter(weights, layout, subject, folder / adapter)
            verified["tensors"] = read_back_adapter(folder / adapter, meant).tensors
            artefact["over"] = adapter
        if needs_model:
            write_model(file, subject, folder / model, say)
            say("Reading the export back.", None)
            read = read_back(folder / model, file)
            beside(folder, model, adapter if apart else None, layout.context)
            precision, strict = PRECISION[order.gguf_type], order.gguf_type != "q8_0"
            verified = verify(subject, artefact, onto, precision, say, strict)
            verified |= {"tensors": read.tensors + len(meant), "largest_tensor_difference": read.largest_difference}
        yield folder, verified


def _question(subject: ExportSource) -> str:
    """What the README asks: a sample prompt of the run, where it had one."""
    asked = [
        row["prompt"] for row in Tail(subject.run.dir / "samples.jsonl").read() if isinstance(row.get("prompt"), str)
    ]
    return asked[0] if asked else "Hello! Who are you?"
