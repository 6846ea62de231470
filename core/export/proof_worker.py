"""Opens an export as a stranger would, and holds it against the run's chat: texts, tokens, answers, logits.

python -m core.export.proof_worker JOBS.json     (a process of its own: an answer from memory would prove nothing)
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache

from core.basemodel.code_consent import trust_only
from core.basemodel.find import find_model
from core.errors import NibbleError
from core.export.formats.registry import open_export
from core.export.proof.checks import ProofCheck
from core.export.proof.compare_texts import PROMPTS, hold_texts, replies_of
from core.export.proof.conversations import ProofConversation
from core.export.proof.divergence import Answers, answers, held_together, likelihoods, logits
from core.export.proof.loaded_model import LoadedModel, place_for
from core.export.proof.readers.llama_cpp import LlamaCppReader
from core.export.proof.readers.ollama import OllamaReader
from core.export.proof.readers.reader import CannotRender, Reader
from core.export.proof.readers.transformers import TransformersReader, load_gguf
from core.export.proof.reference import Reference
from core.export.proof.report import NOT_OPENED
from core.export.shared.destination import Broken
from core.export.shared.options import Say
from core.generation.generate import stop_ids
from core.generation.sampling import Sampling
from core.model.load import is_out_of_memory, load_adapter, load_base
from core.model.stored import Stores
from core.model.vocabulary import beyond, embedding_rows
from core.recipe import DataSettings, QuantizationSettings
from core.setup.llama_cpp import MISSING
from core.system.hardware import claim_card
from core.workspace import Workspace, write_json

LONGEST_TOKENS = 512
ENDS = "what ends a reply"
# So many of llama.cpp's likeliest tokens are compared.
LIKELIEST = 64
# Whatever the type of the tensors, llama.cpp rounds some of what it computes to fp16, such as Gemma's GELU.
LLAMA_CPP_EPS = torch.finfo(torch.float16).eps
Job = dict[str, Any]
Found = dict[str, Any]


@dataclass(frozen=True)
class ProofPrompts:
    """Prompts to answer, as the chat asks them and as the export's own files do."""

    chat: list[list[int]]
    export: list[list[int]]


def reference_of(job: Job) -> Reference:
    """The texts and tokens of the run's chat."""
    about = job["reference"]
    base = find_model(about["model"], about["revision"])
    return Reference(base, Path(about["tokenizer"]), DataSettings(**job["data"]))


def conversations_in(job: Job) -> list[ProofConversation]:
    """What it is proved with."""
    return [ProofConversation(**each) for each in job["conversations"]]


def texts(job: Job, say: Say) -> list[ProofCheck]:
    """Everything that needs no model; where no program is at hand to open the export, that."""
    try:
        reader = open_export(job["artefact"])
    except CannotRender as error:
        return [ProofCheck(PROMPTS, "Ollama", 1, 0, str(error), broken=str(error))]
    if reader is None:
        return [ProofCheck(NOT_OPENED, "llama.cpp", because=f"not opened by llama.cpp: {MISSING}")]
    reference = reference_of(job)
    checks = hold_texts(reference, reader, conversations_in(job), say)
    if isinstance(reader, TransformersReader):
        checks.append(ProofCheck(ENDS, reader.name))
        checks[-1].compare(job["stop"], reader.ends, "the generation settings")
    return checks


def compare(job: Job, say: Say = lambda line, share: None) -> dict[str, Any]:
    """Let `job["reference"]` and `job["artefact"]` answer in turn; what verify.py returns, but for `against`.

    `ties` of the answers that are not equal part where the reference itself wavers between two tokens, within what
    rounding to the dtype moves; `parted` shows the first that do not. `checks` has a line for each thing compared.
    """
    reader = open_export(job["artefact"])
    known = embedding_rows(find_model(job["reference"]["model"], job["reference"]["revision"]))
    asked = _asked(reference_of(job), reader, conversations_in(job), job["most"], known)
    reference = _chat(job, asked, say)
    eps = max(torch.finfo(getattr(torch, job["precision"])).eps, torch.finfo(reference.dtype).eps)
    if isinstance(reader, (LlamaCppReader, OllamaReader)):
        found, checks = _by_llama_cpp(job, reader, asked, reference, max(eps, LLAMA_CPP_EPS), say)
        found = {**found, "llama_cpp": found}
    else:
        found, checks = _by_transformers(job, reader, asked, reference, eps, say)
    return {**found, "checks": _as_json(checks)}


def _as_json(checks: list[ProofCheck]) -> list[dict[str, Any]]:
    return [check.as_json() for check in checks]


def _asked(
    reference: Reference, reader: Reader | None, conversations: list[ProofConversation], most: int, known: int | None
) -> ProofPrompts:
    """Up to `most` prompts, no two the same: the last one of a conversation that is short enough, else its first.

    None with a token that the model, which has embeddings for `known`, cannot look up.
    """
    chat: dict[tuple[int, ...], list[int]] = {}
    for conversation in conversations:
        if len(chat) == most:
            break
        if not conversation.is_answered:
            continue
        try:
            ids, others = _prompt(reference, reader, conversation)
        except CannotRender:
            continue
        if not beyond(ids, known):
            chat.setdefault(tuple(ids), others)
    return ProofPrompts([list(ids) for ids in chat], list(chat.values()))


def _prompt(
    reference: Reference, reader: Reader | None, conversation: ProofConversation
) -> tuple[list[int], list[int]]:
    """The tokens to answer, by the chat and by the export's own files; of a plain text its first half."""
    if conversation.text is not None:
        text = reference.trained(conversation)[0].text
        ids, others = reference.tokens(text), (reader or reference).tokens(text)
        return ids[: max(1, len(ids) // 2)][-LONGEST_TOKENS:], others[: max(1, len(others) // 2)][-LONGEST_TOKENS:]
    messages, ends = reference.shaped(conversation.messages), replies_of(conversation)
    ids = reference.asked(messages[: ends[-1]], conversation.tools)
    if len(ids) > LONGEST_TOKENS:
        ends = ends[:1]
        ids = reference.asked(messages[: ends[-1]], conversation.tools)
    others = ids
    if reader is not None and not reference.is_dated:  # dated texts are the same but for the day that they are made on
        others = reader.tokens(reader.rendered(messages[: ends[-1]], conversation.tools))
    return ids[-LONGEST_TOKENS:], others[-LONGEST_TOKENS:]


def _chat(job: Job, asked: ProofPrompts, say: Say) -> Answers:
    """The chat's replies, over the base held as the run held it."""
    load = job["reference"]

    def loaded() -> LoadedModel:
        here = place_for(load["parameters"], load["packed"], load["model_type"])
        stores = Stores(Workspace(Path(load["workspace"])).quantised, lambda said: say(said, None))
        found, settings = find_model(load["model"], load["revision"]), QuantizationSettings(**load["quantization"])
        base = load_base(found, settings, here, stores=stores)
        model = load_adapter(base, Path(load["adapter"])).eval()
        return LoadedModel(model, _as_the_chat(stop_ids(model, reference_of(job).tokenizer)))

    return _ask(loaded, "the chat", asked.chat, job["new_tokens"], None, say)


def _as_the_chat(stop: list[int]) -> Callable[[int], dict[str, Any]]:
    ends = {"eos_token_id": stop, "pad_token_id": stop[0]} if stop else {}
    return lambda most: {**Sampling(greedy=True).as_arguments(), **ends, "max_new_tokens": most}


def _by_transformers(
    job: Job, reader: Reader | None, asked: ProofPrompts, reference: Answers, eps: float, say: Say
) -> tuple[Found, list[ProofCheck]]:
    """The export's replies, and its logits of the reference's replies.

    `reader` None: it is a GGUF, and llama.cpp is not here; transformers loads it.
    """
    by = reader.name if reader is not None else "transformers"

    def loaded() -> LoadedModel:
        if isinstance(reader, TransformersReader):
            return reader.loaded
        return load_gguf(job["artefact"], _as_the_chat(job["stop"]))

    told = _ask(loaded, "the export", asked.export, job["new_tokens"], reference.replies, say)
    eps = max(eps, torch.finfo(told.dtype).eps)
    found: Found = {"prompts": len(asked.chat), **held_together(reference, told.replies, eps)}
    of_logits, found["largest_logit_difference"] = logits(reference, told, eps, by)
    return found, [answers(found, by), of_logits]


def _ask(
    load: Callable[[], LoadedModel],
    who: str,
    prompts: list[list[int]],
    most: int,
    given: list[list[int]] | None,
    say: Say,
) -> Answers:
    """Greedy replies to the prompts one by one, and the logits of `given` ones or of these.

    What is loaded is let go again before the next is.
    """
    loaded = load()
    replies, logits = [], []
    for number, prompt in enumerate(prompts):
        replies.append(loaded.reply(prompt, most))
        logits.append(loaded.logits(prompt, (given or replies)[number]))
        say(f"Generating replies with {who}: {number + 1} of {len(prompts)} prompts", (number + 1) / len(prompts))
    said = Answers(replies, logits, loaded.dtype)
    del loaded
    clear_device_cache(garbage_collection=True)
    return said


def _by_llama_cpp(
    job: Job, reader: LlamaCppReader | OllamaReader, asked: ProofPrompts, reference: Answers, eps: float, say: Say
) -> tuple[Found, list[ProofCheck]]:
    """The same of llama.cpp, for prompts that fit into the model's context.

    Likelihoods are those of the last token of the reference's reply, so that all of the prompt and the reply count.
    """
    tokens, context = job["new_tokens"], job["artefact"]["context"]
    triples = zip(asked.export, reference.replies, reference.logits, strict=True)
    fitting = [each for each in triples if len(each[0]) + tokens <= context]
    whole, replies, likeliest = [], [], []
    for number, (prompt, reply, _) in enumerate(fitting, start=1):
        whole.append(reader.up_to_stop_words(reply) if isinstance(reader, OllamaReader) else reply)
        replies.append(reader.reply(prompt, tokens))
        likeliest.append(reader.engine.likely(prompt + reply[:-1], LIKELIEST))
        say(f"Generating replies with {reader.name}: {number} of {len(fitting)} prompts", number / len(fitting))
    rows = [logits for _, _, logits in fitting]
    found: Found = {"prompts": len(fitting), **held_together(Answers(whole, rows, reference.dtype), replies, eps)}
    of_logits, found["largest_logit_difference"] = likelihoods([each[-1] for each in rows], likeliest, eps, reader.name)
    return found, [answers(found, reader.name), of_logits]


def prove(jobs: list[Job], say: Say) -> dict[str, Any]:
    """`checks` of texts and tokens; `broken`, why it is refused by them; else `answers`: of each job, by `compare`.

    `refusal`: why it could not be asked for answers, where memory is too small.
    """
    checks = texts(jobs[0], say)
    found: dict[str, Any] = {"checks": _as_json(checks), "answers": []}
    broken = next((check for check in checks if check.broken), None)
    if broken is not None:
        return {**found, "broken": f"{broken.name}, {broken.broken}"}
    try:
        for job in jobs:
            found["answers"].append(compare(job, say))
            clear_device_cache(garbage_collection=True)
    except Broken:
        raise
    except NibbleError as error:
        refusal = str(error)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        refusal = "not enough memory to run it"
    else:
        return found
    return {**found, "refusal": refusal}


def main(file: Path) -> int:
    """Do the jobs in `file`; what they come to is written beside it, as `.result.json`. How far it is, to stdout."""
    claim_card()
    jobs = json.loads(file.read_text(encoding="utf-8"))
    trust_only(Workspace(Path(jobs[0]["reference"]["workspace"])))
    write_json(file.with_suffix(".result.json"), prove(jobs, _to_stdout))
    return 0


def _to_stdout(line: str, share: float | None) -> None:
    print(json.dumps({"proof": line, "share": share}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
