"""Asks an export and its reference the same prompts, each loaded afresh, and says how far apart they are.

python -m core.export.answering JOB.json      (a process of its own: an answer from memory would prove nothing)
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate.utils.memory import clear_device_cache

from core import quantiser
from core.budget import CUDA_CONTEXT_BYTES
from core.build import (
    dtype_for,
    is_out_of_memory,
    keep_quantisation_exact,
    load_adapter,
    load_base,
    load_tokenizer,
    quantization_config,
    torch_device,
)
from core.chat.sampling import Sampling
from core.errors import NibbleError
from core.export import llama_cpp
from core.export.place import Broken
from core.hardware import Device, claim_card, device
from core.models import FoundModel, find_model
from core.recipe import QuantizationSettings
from core.sizes import show_size
from core.trust import trust_only
from core.workspace import Workspace, write_json

# Where a model's best two tokens are nearer than this many roundings of its largest logit, rounding alone decides.
ROUNDINGS = 4
# Held in 4 bits, with embeddings and head in 16: at most so much a parameter, and what a pass takes on top.
PACKED_BYTES, SPARE_BYTES = 1.2, 600_000_000


@dataclass
class Said:
    """What a model answered to each prompt: its tokens, and the logits (tokens, vocabulary) of given replies."""

    replies: list[list[int]]
    logits: list[torch.Tensor]
    dtype: torch.dtype


def compare(job: dict[str, Any]) -> dict[str, Any]:
    """Load `job["reference"]` and `job["artefact"]` in turn; as DESIGN.md's `verified`, but for `against`.

    `ties` of the answers that are not equal part where the reference itself wavers between two tokens, within what
    rounding to the dtype moves; `parted` shows the first that do not.
    """
    prompts, tokens, stop = job["prompts"], job["new_tokens"], job["stop"]
    reference = _ask(job["reference"], prompts, tokens, stop, None)
    eps = max(torch.finfo(getattr(torch, job["precision"])).eps, torch.finfo(reference.dtype).eps)
    if "over" in job["artefact"]:
        found = _by_llama_cpp(job, reference, eps)
        return {**found, "largest_logit_difference": None, "llama_cpp": {**found}}
    artefact = _ask(job["artefact"], prompts, tokens, stop, reference.replies)
    eps = max(eps, torch.finfo(artefact.dtype).eps)
    pairs = zip(reference.logits, artefact.logits, strict=True)
    found = {"prompts": len(prompts), **_held_together(reference, artefact.replies, eps)}
    found["largest_logit_difference"] = max(float((one - other).abs().max()) for one, other in pairs)
    if job["artefact"]["kind"] == "gguf" and llama_cpp.is_installed():
        found["llama_cpp"] = _by_llama_cpp(job, reference, eps)
    return found


def _held_together(reference: Said, replies: list[list[int]], eps: float) -> dict[str, Any]:
    """How many replies are the reference's, how many part where it wavers, and the first that part elsewhere."""
    equal, ties, parted = 0, 0, []
    for number, (own, other) in enumerate(zip(reference.replies, replies, strict=True)):
        if own == other:
            equal += 1
        elif _wavers(reference.logits[number], _parting(own, other), eps):
            ties += 1
        else:
            parted.append({"prompt": number, "reference": own, "artefact": other})
    return {"equal": equal, "ties": ties, "parted": parted[:3]}


def _by_llama_cpp(job: dict[str, Any], reference: Said, eps: float) -> dict[str, Any]:
    """The same of llama.cpp itself, which hands out no token that ends a reply: that counts on neither side.

    `same_tokens`: how many prompts it splits as the tokenizer does.
    """
    if not llama_cpp.is_installed():
        raise NibbleError("base and adapter apart are put together by llama.cpp, which is not installed (xllamacpp)")
    load, tokens = job["artefact"], job["new_tokens"]
    tokenizer = load_tokenizer(find_model(load["model"], load["revision"]), Path(load["tokenizer"]))
    pairs = zip(job["prompts"], reference.replies, reference.logits, strict=True)
    fitting = [each for each in pairs if len(each[0]) + tokens <= load["context"]]
    folder, over = Path(load["folder"]), load.get("over")
    longest = max((len(prompt) for prompt, _, _ in fitting), default=0) + tokens
    model = llama_cpp.LlamaCpp(folder / load["file"], longest + 8, folder / over if over else None)
    texts = [tokenizer.decode(prompt) for prompt, _, _ in fitting]
    same = sum(model.tokens(text) == tokenizer(text, add_special_tokens=False).input_ids for text in texts)

    def without_end(reply: list[int]) -> list[int]:
        return [token for token in reply if token not in job["stop"]]

    whole = [without_end(reply) for _, reply, _ in fitting]
    replies = [without_end(model.reply(prompt, tokens)) for prompt, _, _ in fitting]
    held = _held_together(Said(whole, [logits for _, _, logits in fitting], reference.dtype), replies, eps)
    return {"prompts": len(texts), "same_tokens": same, **held}


def _parting(own: list[int], other: list[int]) -> int:
    """Where two replies part: at the first token that differs, or where the shorter one ends."""
    shorter = min(len(own), len(other))
    return next((at for at in range(shorter) if own[at] != other[at]), shorter)


def _wavers(logits: torch.Tensor, at: int, eps: float) -> bool:
    """Whether the two likeliest tokens at the place `at` of a reply are nearer than rounding can tell apart."""
    here = logits[min(at, len(logits) - 1)]
    best = here.topk(2).values
    return bool(best[0] - best[1] <= ROUNDINGS * eps * here.abs().max())


def _ask(
    load: dict[str, Any], prompts: list[list[int]], tokens: int, stop: list[int], given: list[list[int]] | None
) -> Said:
    """Greedy replies to the prompts one by one, as the chat gives them, and the logits of `given` ones or of these."""
    model = _load(load).eval()
    greedy = {**Sampling(greedy=True).as_arguments(), "max_new_tokens": tokens}
    replies, logits = [], []
    with torch.no_grad():
        for number, prompt in enumerate(prompts):
            ids = torch.tensor([prompt], device=model.device)
            pad = {"eos_token_id": stop, "pad_token_id": stop[0]} if stop else {}
            output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **pad, **greedy)
            replies.append(output[0, len(prompt) :].tolist())
            forced = torch.tensor([prompt + (given or replies)[number]], device=model.device)
            found = model(input_ids=forced, attention_mask=torch.ones_like(forced)).logits[0, len(prompt) - 1 : -1]
            logits.append(found.float().cpu())
    said = Said(replies, logits, model.dtype)
    del model
    clear_device_cache(garbage_collection=True)
    return said


def _load(load: dict[str, Any]) -> Any:
    """`chat`: as the chat loads it. `peft`: as the README of an adapter says. `model`, `gguf`: an exported folder."""
    kind, here = load["kind"], _where(load)
    if kind in ("chat", "peft"):
        base, quantization = find_model(load["model"], load["revision"]), QuantizationSettings(**load["quantization"])
        if kind == "chat":
            return load_adapter(load_base(base, quantization, here), Path(load["adapter"]))
        return _by_plain_peft(base, quantization, here, Path(load["adapter"]))
    if kind == "model":
        return load_base(find_model(load["folder"]), QuantizationSettings(bits=16), here)
    from core.export.gguf_model import load_gguf

    return load_gguf(Path(load["folder"]) / load["file"], find_model(load["model"], load["revision"]), here)


def _by_plain_peft(base: FoundModel, settings: QuantizationSettings, here: Device, adapter: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    dtype, _ = dtype_for(here)
    with quantiser.theirs():
        model = AutoModelForCausalLM.from_pretrained(
            base.folder, quantization_config=quantization_config(settings, dtype), dtype=dtype,
            device_map={"": torch_device(here)},
        )  # fmt: skip
    keep_quantisation_exact(model)
    return PeftModel.from_pretrained(model, adapter)


def _where(load: dict[str, Any]) -> Device:
    """The device if the weights have room there, else the CPU. Raises NibbleError where neither has."""
    memory = psutil.virtual_memory()
    cpu = Device("cpu", "CPU", int(memory.total), int(memory.available))
    for each in (device(), cpu):
        dtype, _ = dtype_for(each)
        needed = load["parameters"] * (PACKED_BYTES if load["packed"] else dtype.itemsize) + SPARE_BYTES
        if each.kind == "cuda":
            needed += CUDA_CONTEXT_BYTES
        if each.free_bytes >= needed:
            return each
    raise NibbleError(f"loading it takes {show_size(needed)}, and {show_size(cpu.free_bytes)} are free")


def main(file: Path) -> int:
    """Do the jobs in `file`; what they come to is written beside it, as `.result.json`."""
    claim_card()
    jobs = json.loads(file.read_text(encoding="utf-8"))
    trust_only(Workspace(Path(jobs[0]["reference"]["workspace"])))
    done: list[dict[str, Any]] = []
    result: Any = done
    try:
        for job in jobs:
            done.append(compare(job))
    except Broken:
        raise
    except NibbleError as error:
        if not done:  # the second is only the distance from the chat
            result = {"refusal": str(error)}
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if not done:
            result = {"refusal": "there was not enough memory to ask it"}
    write_json(file.with_suffix(".result.json"), result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
