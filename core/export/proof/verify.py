"""Proves an export: opened afresh in a process of its own from its files alone, and held against the run's chat."""

import json
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.export.proof.report import Verified
from core.export.shared.destination import Broken, ExportError
from core.export.shared.options import Onto, Say
from core.export.shared.source import ExportSource
from core.system.process import as_process
from core.text.library_errors import telling_line_of
from core.workspace import read_json, write_json

NEW_TOKENS, PROMPTS = 32, 12


def against(source: ExportSource, onto: Onto) -> str:
    """What an export is held against, in words."""
    bits = source.recipe.quantization.bits
    return (
        f"the chat, with the base model in {bits} bits"
        if onto == "dequantised"
        else "base model and adapter in 16 bits"
    )


def job(
    source: ExportSource,
    artefact: dict[str, Any],
    onto: Onto,
    precision: str,
    most: int = PROMPTS,
    new_tokens: int = NEW_TOKENS,
) -> dict[str, Any]:
    """A job of core/export/proof_worker.py: `artefact` is compared with the chat, on conversations of the run's data.

    `most` of them are answered, with at most `new_tokens` each.
    """
    from core.export.proof.conversations import conversations_of
    from core.export.shared.tokenizer_files import stop_tokens
    from core.model.load import load_tokenizer

    tokenizer = load_tokenizer(source.base, source.tokenizer)
    conversations = conversations_of(source, tokenizer, most)
    quantization = source.recipe.quantization.model_dump()
    packed = onto == "dequantised" and quantization["bits"] != 16
    reference = {
        "workspace": str(source.run.workspace),
        "model": source.base.wanted,
        "revision": source.base.revision,
        "quantization": quantization if onto == "dequantised" else {"bits": 16},
        "adapter": str(source.adapter),
        "tokenizer": str(source.tokenizer),
        "model_type": source.base.model_type,
        "parameters": source.base.parameters,
        "packed": packed,
    }
    return {
        "reference": reference,
        "artefact": {**reference, "packed": artefact["format"] == "adapter" and packed, **artefact},
        "conversations": [asdict(conversation) for conversation in conversations.conversations],
        "source": conversations.source,
        "data": source.recipe.data.model_dump(),
        "most": most,
        "new_tokens": new_tokens,
        "stop": stop_tokens(source, tokenizer),
        "precision": precision,
        "against": against(source, onto),
    }


def verify(
    source: ExportSource, artefact: dict[str, Any], onto: Onto, precision: str, say: Say, strict: bool = True
) -> Verified:
    """The proof, as JSON; for weights merged onto the original ones `chat` is the distance from the chat.

    `checks` has a line for each thing that was compared: `name`, `by` which program, `equal` of `of`, `because`.
    `source` says which prompts; `because`, why it could not be asked, where memory is too small to load it. Raises
    Broken where a text or its tokens are not the chat's, or an answer parts from the reference's by more than
    rounding, but for weights that are coarser than 16 bits, and for mixtures, whose experts transformers alone keeps
    in 16 (not `strict`): of those it is reported.
    """
    say("Verifying the export: opening it as another program would, and comparing it with the run's chat.", None)
    jobs = [job(source, artefact, onto, precision)]
    if onto == "original":
        jobs.append(job(source, artefact, "dequantised", precision))
    found = in_a_new_process(jobs, say)
    if "broken" in found:
        raise Broken(
            f"Other programs would not see what was trained ({found['broken']}), so the export was rejected."
            " The export was deleted. Please report it."
        )
    about = {"against": jobs[0]["against"], "source": jobs[0]["source"]}
    if not found["answers"]:
        unasked = {"prompts": 0, "equal": 0, "largest_logit_difference": None, "because": found["refusal"]}
        return {**unasked, **about, "checks": found["checks"]}
    verified = {**found["answers"][0], **about}
    verified["checks"] = [*found["checks"], *verified["checks"]]
    _refuse_broken(verified, about["against"], strict)
    if len(found["answers"]) > 1:
        verified["chat"] = {key: found["answers"][1][key] for key in ("equal", "largest_logit_difference")}
    return verified


def _refuse_broken(verified: Verified, held_against: str, strict: bool) -> None:
    """Take `parted` out. Raises Broken where there is one and it is `strict`."""
    for who, said in (("the export", verified), ("the GGUF in llama.cpp", verified.get("llama_cpp"))):
        if said is None:
            continue
        parted = said.pop("parted")
        if parted and strict:
            raise Broken(
                f"Of {said['prompts']} prompts, {who} replies to {said['equal']} as {held_against} does, and to the "
                f"rest differently"
                f", so the export was rejected."
                " The export was deleted. Please report it."
            )


def in_a_new_process(jobs: list[dict[str, Any]], say: Say) -> Any:
    """What `prove` finds of `jobs`, in a process that has the device to itself."""
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)  # what this process keeps of the device, the other one needs
    with tempfile.TemporaryDirectory(prefix="nibble-proof-") as folder:
        file, errors = Path(folder) / "jobs.json", Path(folder) / "errors.txt"
        write_json(file, jobs)
        with (
            errors.open("wb") as log,
            subprocess.Popen(
                **as_process("core.export.proof_worker", str(file)),
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                errors="replace",
            ) as process,
        ):
            try:
                for line in process.stdout or ():
                    _tell(line, say)
            except BaseException:
                process.kill()
                raise
        found = read_json(file.with_suffix(".result.json"))
        said = errors.read_text(encoding="utf-8", errors="replace")
    if found is None:
        last = telling_line_of(said, "it said nothing")
        raise ExportError(f"The export could not be loaded for verification, so it was rejected: {last}")
    return found


def _tell(line: str, say: Say) -> None:
    """Hand on what the process says of how far it is; libraries write to its output too."""
    try:
        told = json.loads(line)
    except ValueError:
        return
    if isinstance(told, dict) and "proof" in told:
        say(told["proof"], told["share"])
