"""The fused LoRA layer against PEFT's own on this machine's GPU: `bench train` has it measured, and runs go by it.

    python -m bench._fused      (prints the times of each number of tokens as JSON)

Two layers of an 8B model with random weights, forward and backward in training mode, at the tokens of a small and a
large micro-batch: bitsandbytes has kernels for few tokens that do not dequantise, so the smaller may lose where the
larger gains. Both layers take turns for several rounds. What counts is the smallest of the rounds' median ratios: a
run that goes by it should be slower with no micro-batch.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from typing import Any

from bench._gpu import Row, config_of, row
from core.recipe import make_recipe
from core.step.fused_gain import LEAST, keep_gain
from core.system.hardware import Device, claim_card, device
from core.system.process import as_process
from core.workspace import Workspace

MODEL = {**config_of("llama-3.1-8b"), "num_hidden_layers": 2, "vocab_size": 1000}
TOKENS = (512, 2048)
ROUNDS = 9
PASSES = 5


def rows() -> list[Row]:
    """Rows for `bench train`, none without an NVIDIA GPU. The smallest ratio is kept in the workspace."""
    card = device()
    if card.kind != "cuda":
        return []
    done = subprocess.run(**as_process("bench._fused"), stdout=subprocess.PIPE, encoding="utf-8", check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return remember(Workspace.open(None), found["gpu"], found["computing"], found["times"])


def remember(workspace: Workspace, gpu: str, computing: str, times: dict[str, float]) -> list[Row]:
    """Keep the smallest ratio for the runs to come. Returns a row for each number of tokens."""
    keep_gain(workspace, gpu, computing, min(times.values()))
    used = "used from now on" if min(times.values()) >= LEAST else "not used"
    name = f"fused LoRA layer ({used}) against PEFT's"
    return [row(f"{name}, {tokens} tokens", each, "times", 1.0, None, None) for tokens, each in times.items()]


def ratios(config: dict[str, Any], here: Device, rounds: int = ROUNDS) -> dict[int, float]:
    """By the number of tokens: how many times as fast the fused layer is, on two models with the same weights."""
    from core.step.fused_lora import fuse

    theirs, ours = (_adapted(config, here) for _ in range(2))
    fuse(ours, here.kind)
    return {tokens: _ratio(theirs, ours, tokens, rounds) for tokens in TOKENS}


def _adapted(config: dict[str, Any], here: Device) -> Any:
    from bench._random_model import load_random
    from core.model.load import attach_lora, dtype_for
    from core.step.adapter_dtype import adapter_dtype, compute_in_input_dtype
    from core.step.optimizer import optimizer_for

    recipe = make_recipe({"lora.rank": 16})
    base = load_random(config, recipe.quantization, here)
    adapters_in = adapter_dtype(dtype_for(here)[0], optimizer_for(recipe.train.optimizer), here.kind)
    model = attach_lora(base, recipe.lora, adapters_in)
    compute_in_input_dtype(model)
    return model.train()


def _ratio(theirs: Any, ours: Any, tokens: int, rounds: int) -> float:
    pairs = [(_seconds(theirs, tokens), _seconds(ours, tokens)) for _ in range(rounds + 1)][1:]  # one warms up
    return statistics.median(one / other for one, other in pairs)


def _seconds(model: Any, tokens: int) -> float:
    """The time of some forward and backward passes, without the head's."""
    import torch

    from core.step.loss import last_hidden

    causal = model.get_base_model()
    ids = torch.arange(tokens, device=causal.device)[None] % causal.config.vocab_size
    _wait()
    began = time.perf_counter()
    for _ in range(PASSES):
        hidden = last_hidden(causal, input_ids=ids)
        hidden.backward(hidden.detach())
        model.zero_grad(set_to_none=True)
    _wait()
    return time.perf_counter() - began


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    claim_card()
    from core.model.load import dtype_for

    chosen = device()
    computing = str(dtype_for(chosen)[0]).removeprefix("torch.")
    print(json.dumps({"gpu": chosen.name, "computing": computing, "times": ratios(MODEL, chosen)}))
