"""Tokens per second and peak memory on a GPU: an 8B model with random weights, ours against trl's defaults.

Both have the same effective batch size, and ours may take no more memory than theirs took. The last figure is the
share of the card's bf16 matrix throughput, measured here, that a step reaches.
"""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

from bench._gpu import Row, config_of, has_gpu, measure_constants, row
from bench._gpu_run import Job, Outcome, run_job
from core.system.process import child_environment
from core.workspace import ROOT

MODEL = "llama-3.1-8b"
LENGTHS = (512, 2048, 8192)
MIXED = 2048
STEPS = 4
EFFECTIVE_BATCH = 16
BARS = {"mixed": 1.5, "dense": 1.1}
# A frozen base takes 2 operations per parameter and token forward, and 2 backward, for the activations alone.
OPERATIONS = 4
_RATE = """
import time, torch
a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
for _ in range(5): a @ a
torch.cuda.synchronize()
began = time.perf_counter()
for _ in range(50): a @ a
torch.cuda.synchronize()
print(50 * 2 * 8192**3 / (time.perf_counter() - began))
"""


def main(seed: int = 0) -> list[Row]:
    """Rows of figures, as `bench NAME --json` prints them; none without a GPU."""
    if not has_gpu("this benchmark"):
        return []
    measure_constants()
    rate = matrix_rate()
    found = [row("the card's bf16 matrix rate, 8192 x 8192", rate / 1e12, "TFLOP/s", None, None, None)]
    draw = random.Random(seed)
    mixed = [round(16 * (MIXED / 16) ** draw.random()) for _ in range(EFFECTIVE_BATCH * STEPS)]
    found += _compare(f"mixed lengths, 16 to {MIXED:,} tokens", mixed, MIXED, seed, BARS["mixed"], rate)
    for length in LENGTHS:
        dense = [length] * (EFFECTIVE_BATCH * STEPS)
        found += _compare(f"{length:,} tokens each", dense, length, seed, BARS["dense"], rate)
    return found


def matrix_rate() -> float:
    """The card's speed in a large product of bf16 matrices, in operations per second."""
    done = subprocess.run(
        [sys.executable, "-c", _RATE], cwd=ROOT, env=child_environment(), capture_output=True, encoding="utf-8"
    )
    return float(done.stdout)


def _compare(what: str, lengths: list[int], longest: int, seed: int, bar: float, rate: float) -> list[Row]:
    settings: dict[str, Any] = {
        "lora.rank": 64,
        "train.effective_batch": EFFECTIVE_BATCH,
        "train.max_steps": STEPS,
        "train.seed": seed,
        "data.max_length": longest,
    }
    config = config_of(MODEL)
    theirs = run_job(Job(config, {**settings, "train.micro_batch": _their_batch(longest)}, lengths, reference=True))
    ours = run_job(Job(config, settings, lengths, budget_bytes=theirs.process))
    return figures(what, ours, theirs, bar, rate)


def _their_batch(longest: int) -> int:
    """trl's default of 8 if it fits the card; 1 for the longest."""
    return 8 if longest <= MIXED else 1


def figures(what: str, ours: Outcome, theirs: Outcome, bar: float, rate: float) -> list[Row]:
    """Speed and memory of both, their ratio against the bar, and ours as a share of the card's speed."""
    ratio = ours.tokens_per_second / theirs.tokens_per_second
    share = 100 * OPERATIONS * ours.parameters * ours.tokens_per_second / rate
    reference = theirs.tokens_per_second
    return [
        row(f"{MODEL}, {what}: Nibble", ours.tokens_per_second, "tokens/s", reference, None, None),
        row(f"{MODEL}, {what}: Nibble against trl", ratio, "times", 1.0, bar, ratio >= bar),
        row(f"{MODEL}, {what}: memory", ours.process / 1e9, "GB", theirs.process / 1e9, None, None),
        row(f"{MODEL}, {what}: of the card's rate", share, "%", None, None, None),
    ]
