"""Tokens per second and peak memory on a GPU: an 8B model with random weights, ours against trl's SFTTrainer.

Against trl's defaults, ours may take no more memory than theirs took. Against trl tuned by hand (the card's dtype, and
of what fits the card, with gradient checkpointing and without, the fastest), both may take the whole card. All have
the same effective batch size. The last figure is the share of the card's bf16 matrix throughput, measured here, that
a step reaches.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from bench._gpu import has_gpu, measure_constants
from bench._gpu_frame import Frame, Item, Row, row, rows_of
from bench._gpu_run import Job, Outcome, run_job
from core.system.process import child_environment
from core.workspace import ROOT

MODEL = "llama-3.1-8b"
MIXED = 2048
# (what, longest conversation, bar against trl's defaults, bar against trl tuned by hand)
WORKLOADS = (
    ("mixed", MIXED, 1.5, 1.1),
    ("dense", 2048, 1.1, 1.0),
    ("dense", 512, 1.1, 1.0),
    ("dense", 8192, 1.1, 1.0),
)
STEPS = 4
EFFECTIVE_BATCH = 16
# A frozen base takes 2 operations per parameter and token forward, and 2 backward, for the activations alone.
OPERATIONS = 4
_RATE = """
import time, torch
a = torch.randn({0}, {0}, device="cuda", dtype=torch.bfloat16)
for _ in range(5): a @ a
torch.cuda.synchronize()
began = time.perf_counter()
for _ in range({1}): a @ a
torch.cuda.synchronize()
print({1} * 2 * {0}**3 / (time.perf_counter() - began))
"""


def main(seed: int = 0) -> list[Row]:
    """Rows of figures, as `bench NAME --json` prints them; none without a GPU."""
    if not has_gpu("this benchmark"):
        return []
    return rows_of(measured(seed, Frame()))


def measured(seed: int, frame: Frame) -> Iterator[Item]:
    """The matrix rate, then each workload against both references."""
    measure_constants()
    rate = matrix_rate(frame)
    yield row("the card's bf16 matrix rate, 8192 x 8192", rate / 1e12, "TFLOP/s", None, None, None)
    draw = random.Random(seed)
    for kind, longest, bar, bar_tuned in frame.few(WORKLOADS):
        what = f"mixed lengths, 16 to {longest:,} tokens" if kind == "mixed" else f"{longest:,} tokens each"
        lengths = [_length(kind, longest, draw) for _ in range(EFFECTIVE_BATCH * STEPS)]
        job = _job(frame, longest, lengths, seed)
        for compare, least in ((_against_defaults, bar), (_against_tuned, bar_tuned)):
            yield from frame.attempt(f"{MODEL}, {what}", partial(compare, what, job, frame, least, rate))


def _length(kind: str, longest: int, draw: random.Random) -> int:
    return round(16 * (longest / 16) ** draw.random()) if kind == "mixed" else longest


def _job(frame: Frame, longest: int, lengths: list[int], seed: int) -> Job:
    settings: dict[str, Any] = {
        "lora.rank": 64,
        "train.effective_batch": EFFECTIVE_BATCH,
        "train.max_steps": STEPS,
        "train.seed": seed,
        "data.max_length": frame.tokens(longest),
    }
    return Job(frame.config(MODEL), settings, [frame.tokens(each) for each in lengths])


def _against_defaults(what: str, job: Job, frame: Frame, bar: float, rate: float) -> list[Row]:
    """trl's batch of 8 where it fits the card, 1 for the longest; ours within the memory that theirs took."""
    size = 8 if job.settings["data.max_length"] <= MIXED else 1
    default = replace(job, settings={**job.settings, "train.micro_batch": size}, engine="trl")
    theirs = run_job(default, frame.left())
    ours = run_job(replace(job, budget_bytes=theirs.process), frame.left())
    return figures(what, "trl's defaults", ours, theirs, bar, rate)


def _against_tuned(what: str, job: Job, frame: Frame, bar: float, rate: float) -> list[Row]:
    theirs = run_job(replace(job, engine="tuned"), frame.left())
    chosen = f"{theirs.chosen['micro_batch']} at once, checkpointing {theirs.chosen['checkpointing']}"
    return figures(what, f"trl tuned by hand ({chosen})", run_job(job, frame.left()), theirs, bar, rate)


def matrix_rate(frame: Frame) -> float:
    """The card's speed in a large product of bf16 matrices, in operations per second."""
    script = _RATE.format(*((256, 3) if frame.tiny else (8192, 50)))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=child_environment(), capture_output=True, encoding="utf-8"
    )
    return float(done.stdout)


def figures(what: str, against: str, ours: Outcome, theirs: Outcome, bar: float, rate: float) -> list[Row]:
    """Speed and memory of both, their ratio against the bar, and ours as a share of the card's speed."""
    ratio = ours.tokens_per_second / theirs.tokens_per_second
    share = 100 * OPERATIONS * ours.parameters * ours.tokens_per_second / rate
    reference, name = theirs.tokens_per_second, f"{MODEL}, {what}"
    return [
        row(f"{name}: Nibble beside {against}", ours.tokens_per_second, "tokens/s", reference, None, None),
        row(f"{name}: Nibble against {against}", ratio, "times", 1.0, bar, ratio >= bar),
        row(f"{name}: memory beside {against}", ours.process / 1e9, "GB", theirs.process / 1e9, None, None),
        row(f"{name}: of the card's rate, in the memory of {against}", share, "%", None, None, None),
    ]
