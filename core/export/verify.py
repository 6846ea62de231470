"""Proves an export: loaded afresh in a process of its own, it is asked what its reference is asked, and compared."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.export.place import Broken, ExportError
from core.export.subject import Subject
from core.export.weights import Onto
from core.process import as_process
from core.telling import telling_line_of
from core.workspace import read_json, write_json

NEW_TOKENS = 32
Verified = dict[str, Any]


def against(subject: Subject, onto: Onto) -> str:
    """What an export is held against, in words."""
    bits = subject.recipe.quantization.bits
    return f"the chat, over the base in {bits} bits" if onto == "dequantised" else "base and adapter in 16 bits"


def job(
    subject: Subject, artefact: dict[str, Any], onto: Onto, precision: str, most: int = 20, new_tokens: int = NEW_TOKENS
) -> dict[str, Any]:
    """What core/export/answering.py does: ask `artefact` and its reference prompts of the run's own data."""
    from core.build import load_tokenizer
    from core.export.companions import stop_tokens
    from core.export.prompts import prompts_of

    tokenizer = load_tokenizer(subject.base, subject.tokenizer)
    prompts = prompts_of(subject, tokenizer, most)
    quantization = subject.recipe.quantization.model_dump()
    packed = onto == "dequantised" and quantization["bits"] != 16
    reference = {
        "kind": "chat",
        "workspace": str(subject.run.workspace),
        "model": subject.base.wanted,
        "revision": subject.base.revision,
        "quantization": quantization if onto == "dequantised" else {"bits": 16},
        "adapter": str(subject.adapter),
        "tokenizer": str(subject.tokenizer),
        "parameters": subject.base.parameters,
        "packed": packed,
    }
    return {
        "reference": reference,
        "artefact": {**reference, "packed": artefact["kind"] == "peft" and packed, **artefact},
        "prompts": prompts.ids,
        "source": prompts.source,
        "new_tokens": new_tokens,
        "stop": stop_tokens(subject, tokenizer),
        "precision": precision,
        "against": against(subject, onto),
    }


def verify(
    subject: Subject,
    artefact: dict[str, Any],
    onto: Onto,
    precision: str,
    say: Callable[[str, float | None], None],
    strict: bool = True,
) -> Verified:
    """DESIGN.md's `verified`; for weights merged onto the original ones `chat` is the distance from the chat.

    `source` says which prompts; `because`, why it could not be asked, where memory is too small to load it. Raises
    Broken where an answer parts from the reference's by more than rounding, but for weights that are coarser than 16
    bits, and for mixtures, whose experts transformers alone keeps in 16 (not `strict`): of those it is reported.
    """
    say("Proving it: loading it afresh beside its reference, and asking both the same.", None)
    jobs = [job(subject, artefact, onto, precision)]
    if onto == "original":
        jobs.append(job(subject, artefact, "dequantised", precision))
    found = _in_a_new_process(jobs)
    about = {"against": jobs[0]["against"], "source": jobs[0]["source"]}
    if isinstance(found, dict):
        return {"prompts": 0, "equal": 0, "largest_logit_difference": None, **about, "because": found["refusal"]}
    verified = {**found[0], **about}
    _refuse_broken(verified, about["against"], strict)
    if len(found) > 1:
        verified["chat"] = {key: found[1][key] for key in ("equal", "largest_logit_difference")}
    return verified


def _refuse_broken(verified: Verified, held_against: str, strict: bool) -> None:
    """Take `parted` out. Raises Broken where there is one and it is `strict`, or tokens are not the same."""
    for who, said in (("the export", verified), ("the GGUF in llama.cpp", verified.get("llama_cpp"))):
        if said is None:
            continue
        parted = said.pop("parted")
        if parted and strict:
            raise Broken(
                f"Of {said['prompts']} prompts {who} answers {said['equal']} as {held_against} does, and not the "
                "others, so it is not handed over. Nothing of it is kept. Please report it."
            )
        if said.get("same_tokens", said["prompts"]) != said["prompts"]:
            raise Broken(
                f"llama.cpp splits {said['prompts'] - said['same_tokens']} of {said['prompts']} prompts into other "
                "tokens than the model was trained with, so the GGUF is not handed over. Export it merged instead."
            )


def sentence(verified: Verified) -> str:
    """The proof, for a person: '20 of 20 answers equal, largest logit difference 0.004, against …'."""
    if not verified["prompts"]:
        read = (
            f" All {verified['tensors']} tensors were read back as they were written." if "tensors" in verified else ""
        )
        return f"Not proved by answers: {verified['because']}.{read}"
    ties = verified.get("ties", 0)
    tied = f"; {ties} part where the next two words are as likely but for rounding" if ties else ""
    equal = f"{verified['equal']} of {verified['prompts']} answers equal"
    said = f"{equal}{_logits(verified)}{tied}. Held against {verified['against']}."
    if "llama_cpp" in verified:
        by = verified["llama_cpp"]
        said += f" llama.cpp itself answers {by['equal']} of {by['prompts']} equal, from the same tokens."
    if "tensors" in verified:
        said += f" All {verified['tensors']} tensors were read back as they were written."
    if "chat" in verified:
        chat = verified["chat"]
        said += f" Beside the chat in 4 bits: {chat['equal']} of {verified['prompts']} answers equal{_logits(chat)}."
    return said


def _logits(found: Verified) -> str:
    difference = found["largest_logit_difference"]
    return f", largest logit difference {difference:.2g}" if difference is not None else ""


def _in_a_new_process(jobs: list[dict[str, Any]]) -> Any:
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)  # what this process keeps of the device, the other one needs
    with tempfile.TemporaryDirectory(prefix="nibble-proof-") as folder:
        file = Path(folder) / "jobs.json"
        write_json(file, jobs)
        done = subprocess.run(
            **as_process("core.export.answering", str(file)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        found = read_json(file.with_suffix(".result.json"))
    if found is None:
        last = telling_line_of(done.stderr, "it said nothing")
        raise ExportError(f"The export could not be loaded to be proved, so it is not handed over: {last}")
    return found
