"""The chat on a GPU: the benchmark `chat` with the starter, and the tokens per second of an 8B model in NF4."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from bench import chat
from bench._gpu_frame import Frame, Item, Row, TookTooLong, row
from core.system.hardware import claim_card
from core.system.process import as_process
from core.text.library_errors import telling_line_of

MODEL = "llama-3.1-8b"
PROMPT_TOKENS, TOKENS = 512, 128
ROUNDS = 3
BAR = 0.95


def measured(seed: int, frame: Frame) -> Iterator[Item]:
    """The large model first, in a process of its own: what it takes of the card is free for the other."""
    yield from frame.attempt(f"chat, {MODEL}", partial(_large, frame))
    yield from frame.attempt("chat", partial(chat.main, seed, 1 if frame.tiny else chat.ROUNDS))


def _large(frame: Frame) -> list[Row]:
    lengths = [frame.tokens(PROMPT_TOKENS), frame.tokens(TOKENS)]
    command = as_process("bench._gpu_chat", json.dumps({"config": frame.config(MODEL), "lengths": lengths}))
    try:
        done = subprocess.run(**command, capture_output=True, encoding="utf-8", timeout=max(1.0, frame.left()))
    except subprocess.TimeoutExpired:
        raise TookTooLong from None
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError(telling_line_of(done.stderr, "no output"))
    ours, theirs, first = json.loads(lines[-1])
    name = f"chat, {MODEL} in NF4, {lengths[0]} tokens before"
    return [
        row(f"{name}: tokens per second, beside bare generate", ours, "tokens/s", theirs, None, None),
        row(f"{name}: speed against bare generate", ours / theirs, "times", 1.0, BAR, ours >= BAR * theirs),
        row(f"{name}: first token", first, "s", None, None, None),
    ]


def speeds(config: dict[str, Any], prompt_tokens: int, tokens: int) -> tuple[float, float, float]:
    """The best of several rounds: tokens per second of the chat and of bare `generate`, and the first token's seconds.

    The model has random weights and says nothing that ends its reply early.
    """
    from bench._random_model import load_random
    from core.basemodel.find import find_model
    from core.generation.generate import stream
    from core.generation.sampling import Sampling
    from core.model.load import dtype_for, load_tokenizer
    from core.recipe import make_recipe
    from core.system.hardware import device

    card = device()
    model = load_random(config, make_recipe({}).quantization, card, dtype_for(card)[0]).eval()
    tokenizer = load_tokenizer(find_model("starter"))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    prompt, sampling = [5 + at % 500 for at in range(prompt_tokens)], Sampling(tokens, greedy=True)
    ours, theirs = [], []
    for _ in range(ROUNDS + 1):  # one warms up
        reply = [*stream(model, tokenizer, prompt, sampling)][-1]
        ours.append((reply.tokens_per_second, reply.first_token_seconds))
        theirs.append(_bare(model, prompt, tokens, tokenizer))
    return max(each for each, _ in ours[1:]), max(theirs[1:]), min(first for _, first in ours[1:])


def _bare(model: Any, prompt: list[int], tokens: int, tokenizer: Any) -> float:
    import torch

    ids = torch.tensor([prompt], device=model.device)
    began = time.perf_counter()
    with torch.no_grad():
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    said = output[0, len(prompt) :].tolist()  # which waits for the card
    return len(said) / (time.perf_counter() - began)


if __name__ == "__main__":
    claim_card()
    job = json.loads(sys.argv[1])
    print(json.dumps(speeds(job["config"], *job["lengths"])))
