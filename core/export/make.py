"""One export from beginning to end: refused if it cannot be, written beside, proved, described, put in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.export.adapter import adapter_bytes, adapter_card, write_adapter, zip_folder
from core.export.card import write_card
from core.export.place import ExportError, refuse_full_disk, refuse_place, writing
from core.export.subject import Subject, find_subject
from core.export.verify import Verified, verify
from core.runs.store import Run, Tail
from core.workspace import Workspace

Format = Literal["adapter", "merged", "ollama", "gguf"]
Say = Callable[[str, float | None], None]
GGUF_SPARE_BYTES = 60_000_000
# The rounding that a GGUF's answers may show, as a dtype; q8_0 is coarser than any, and only reported.
PRECISION = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "q8_0": "bfloat16"}
NOT_ASKED = {
    "prompts": 0,
    "equal": 0,
    "largest_logit_difference": None,
    "against": "the adapter that it was written from",
    "because": "an adapter as GGUF answers only over a GGUF of its base",
}


@dataclass(frozen=True)
class Order:
    """What is to be made of a run, and where. `precision` is of merged weights, `gguf_type` of a GGUF's tensors.

    `adapter_only`: of GGUF and Ollama, the adapter for a base that is there already.
    """

    to: Format
    out: Path
    onto: Literal["dequantised", "original"] = "dequantised"
    precision: Literal["auto", "float16", "bfloat16", "float32"] = "auto"
    gguf_type: Literal["f16", "bf16", "q8_0", "f32"] = "f16"
    adapter_only: bool = False


def export(workspace: Workspace, run: Run, order: Order, say: Say) -> dict[str, Any]:
    """Make the export. Returns DESIGN.md's `dir, files, bytes, verified`; and `zip`, of an adapter.

    `say` gets a line for a person, and the share that is done where it is known. Raises NibbleError in one sentence;
    then nothing of the export is left, but for one that is killed: a merge goes on where it was.
    """
    refuse_place(order.out)
    subject = find_subject(run, lambda line: say(line, None))
    make = {"adapter": _adapter, "merged": _merged, "gguf": _gguf}[order.to]
    result = make(workspace, subject, order, say)
    files = sorted(path for path in order.out.rglob("*") if path.is_file())
    return {
        "dir": str(order.out),
        "files": [path.relative_to(order.out).as_posix() for path in files],
        "bytes": sum(path.stat().st_size for path in files),
        **result,
    }


def _adapter(workspace: Workspace, subject: Subject, order: Order, say: Say) -> dict[str, Any]:
    packed = order.out.with_name(f"{order.out.name}.zip")
    if packed.exists():
        raise ExportError(f"The file {packed} is there already. Choose another folder, or move it away first.")
    refuse_full_disk(order.out, adapter_bytes(subject))
    with writing(order.out) as folder:
        say("Writing the adapter.", None)
        write_adapter(subject, folder)
        artefact = {"kind": "peft", "adapter": str(folder)}
        verified = _proved(workspace, subject, artefact, "dequantised", "float32", say)
        write_card(subject, folder, adapter_card(subject, _question(subject)), verified)
        say("Packing the zip.", None)
        zip_folder(folder, packed)
    return {"verified": verified, "zip": str(packed)}


def _merged(workspace: Workspace, subject: Subject, order: Order, say: Say) -> dict[str, Any]:
    from core.export.merged import merged_bytes, merged_card, precision_of, write_merged
    from core.export.weights import MergedWeights
    from core.hardware import device

    say("Looking at base and adapter.", None)
    weights = MergedWeights(subject, order.onto, device())
    dtype = precision_of(order.precision, weights.tensors)
    refuse_full_disk(order.out, merged_bytes(weights, dtype))
    with writing(order.out) as folder:
        write_merged(subject, weights, folder, dtype, say)
        artefact = {"kind": "model", "folder": str(folder)}
        verified = _proved(workspace, subject, artefact, order.onto, str(dtype).removeprefix("torch."), say)
        write_card(subject, folder, merged_card(subject, order.onto, dtype, _question(subject)), verified)
    return {"verified": verified}


def _gguf(workspace: Workspace, subject: Subject, order: Order, say: Say) -> dict[str, Any]:
    from core.export.gguf_card import adapter_card, model_card

    with _gguf_written(workspace, subject, order, say) as (folder, verified):
        card = adapter_card if order.adapter_only else model_card
        write_card(subject, folder, card(subject, order.gguf_type), verified)
    return {"verified": verified}


@contextmanager
def _gguf_written(workspace: Workspace, subject: Subject, order: Order, say: Say) -> Iterator[tuple[Path, Verified]]:
    """The folder with the GGUF in it, proved; what the block adds to it comes along."""
    from core.export.gguf_card import gguf_name
    from core.export.gguf_check import read_back, read_back_adapter
    from core.export.gguf_families import Layout, family_of
    from core.export.gguf_file import adapter_tensors, model_file, write_adapter, write_model
    from core.export.weights import MergedWeights
    from core.hardware import device

    family = family_of(subject.base.config)
    say("Looking at base and adapter.", None)
    weights = MergedWeights(subject, order.onto, device())
    layout = Layout(family, weights.config)
    name = gguf_name(subject, "adapter" if order.adapter_only else order.gguf_type)
    if order.adapter_only:
        refuse_full_disk(order.out, adapter_bytes(subject))
        with writing(order.out) as folder:
            write_adapter(weights, layout, subject, folder / name)
            read = read_back_adapter(folder / name, list(adapter_tensors(weights, layout, subject.alpha)))
            yield folder, {**NOT_ASKED, "tensors": read.tensors}
        return
    file = model_file(subject, weights, layout, order.gguf_type)
    refuse_full_disk(order.out, file.bytes + GGUF_SPARE_BYTES)
    with writing(order.out) as folder:
        write_model(file, subject, folder / name, say)
        say("Reading it back.", None)
        read = read_back(folder / name, file)
        artefact = {"kind": "gguf", "folder": str(folder), "file": name, "context": layout.context}
        precision, strict = PRECISION[order.gguf_type], order.gguf_type != "q8_0"
        verified = _proved(workspace, subject, artefact, order.onto, precision, say, strict)
        yield folder, {**verified, "tensors": read.tensors, "largest_tensor_difference": read.largest_difference}


def _proved(
    workspace: Workspace,
    subject: Subject,
    artefact: dict[str, Any],
    onto: Any,
    precision: str,
    say: Say,
    strict: bool = True,
) -> Verified:
    """The proof, with the device held meanwhile: on a GPU it needs the memory that a run or the chat may have."""
    from core.runs.holder import hold

    with hold(workspace, "export", subject.run.name):
        return verify(subject, artefact, onto, precision, lambda line: say(line, None), strict)


def _question(subject: Subject) -> str:
    """What the README asks: a sample prompt of the run, where it had one."""
    asked = [
        row["prompt"] for row in Tail(subject.run.dir / "samples.jsonl").read() if isinstance(row.get("prompt"), str)
    ]
    return asked[0] if asked else "Hello! Who are you?"
