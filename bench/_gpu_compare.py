"""One thing of a training step on and off, on the same model and rows: its speed, its memory, and its losses."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from bench._gpu import measure_constants
from bench._gpu_frame import Frame, Item, Row, row
from bench._gpu_run import Job, Outcome, run_job

STEPS = 3
EFFECTIVE_BATCH = 8
# A high one: an adapter's B begins at zero, and has to count after one step.
LEARNING_RATE = 0.005
# How far the losses, in nats, and the gradients' norms, in percent, of two ways to do the same may be apart. In bf16
# with its 8 bits of mantissa. Of random weights the loss says little, the gradient much.
SAME_LOSS, SAME_GRADIENT = 0.02, 3.0
# What NVML may read above a limit that torch's allocator holds: another context than was measured.
SLACK = 1.01


@dataclass(frozen=True)
class Comparison:
    """What is compared with what: `on` and `off` are the fields in which two jobs differ.

    `bar`: the least that the speed may be, as a multiple of that of `off`; None where the gain is in memory.
    """

    what: str
    on: dict[str, Any]
    off: dict[str, Any]
    names: tuple[str, str]
    model: str = "llama-3.1-8b"
    settings: dict[str, Any] = field(default_factory=dict)
    mixed: bool = False
    longest: int = 2048
    bar: float | None = None


OFFLOAD = Comparison(
    "activation offload",
    on={"changes": {"checkpointing": "full", "offload": True}},
    off={"changes": {"checkpointing": "full", "offload": False}},
    names=("offloaded", "kept on the card"),
    settings={"train.gradient_checkpointing": "on", "train.micro_batch": 4},
)
EMBEDDINGS = Comparison(
    "embeddings in RAM",
    on={"changes": {"embeddings_in_ram": True}},
    off={"changes": {"embeddings_in_ram": False}},
    names=("in RAM", "on the card"),
    settings={"train.micro_batch": 4},
)
FP16 = Comparison(
    "fp16 with its scaler",
    on={"dtype": "float16"},
    off={},
    names=("fp16", "the card's own dtype"),
    model="llama-3.2-1b",
    settings={"train.micro_batch": 4},
)
PACKING = Comparison(
    "packing",
    on={},
    off={"settings": {"train.packing": "off"}},
    names=("packed", "padded"),
    settings={"train.micro_batch": 8, "train.gradient_checkpointing": "on"},
    mixed=True,
    bar=1.0,
)
VARLEN = Comparison(
    "packed attention",
    on={"settings": {"train.attention": "auto"}},
    off={"settings": {"train.attention": "sdpa"}},
    names=("varlen_attn", "SDPA with a mask"),
    settings={"train.micro_batch": 8, "train.gradient_checkpointing": "on"},
    longest=1024,
)
FUSED = Comparison(
    "fused LoRA layer",
    on={"settings": {"train.fused_lora": "on"}},
    off={"settings": {"train.fused_lora": "off"}},
    names=("fused", "PEFT's own"),
    settings={"train.micro_batch": 4},
)


def measured(comparison: Comparison, seed: int, frame: Frame) -> Iterator[Item]:
    """The rows of one comparison."""
    measure_constants()
    yield from frame.attempt(comparison.what, partial(_compare, comparison, seed, frame))


def _compare(comparison: Comparison, seed: int, frame: Frame) -> list[Row]:
    job = job_of(comparison, seed, frame)
    off = run_job(_changed(job, comparison.off), frame.left())
    on = run_job(_changed(job, comparison.on), frame.left())
    return figures(comparison, on, off)


def job_of(comparison: Comparison, seed: int, frame: Frame) -> Job:
    """What both do."""
    draw, longest = random.Random(seed), frame.tokens(comparison.longest)
    settings = {
        "lora.rank": 64,
        "train.effective_batch": EFFECTIVE_BATCH,
        "train.max_steps": STEPS,
        "train.learning_rate": LEARNING_RATE,
        "train.seed": seed,
        "data.max_length": longest,
    }
    lengths = [longest] * (EFFECTIVE_BATCH * STEPS)
    if comparison.mixed:
        lengths = [round(16 * (longest / 16) ** draw.random()) for _ in lengths]
    return Job(frame.config(comparison.model), {**settings, **comparison.settings}, lengths)


def _changed(job: Job, fields: dict[str, Any]) -> Job:
    return replace(job, **{**fields, "settings": {**job.settings, **fields.get("settings", {})}})


def figures(comparison: Comparison, on: Outcome, off: Outcome) -> list[Row]:
    """Speed, memory and losses with it, each beside those without."""
    what, (name, other) = f"{comparison.what}, {comparison.model}", comparison.names
    ratio = on.tokens_per_second / off.tokens_per_second
    holds = None if comparison.bar is None else ratio >= comparison.bar
    return [
        row(f"{what}: {name}, beside {other}", on.tokens_per_second, "tokens/s", off.tokens_per_second, None, None),
        row(f"{what}: speed, {name} against {other}", ratio, "times", 1.0, comparison.bar, holds),
        row(f"{what}: memory, {name} beside {other}", on.process / 1e9, "GB", off.process / 1e9, None, None),
        row(f"{what}: memory planned, {name}", on.predicted["process"] / 1e9, "GB", on.process / 1e9, None, None),
        *_apart(what, on, off),
    ]


def _apart(what: str, one: Outcome, other: Outcome) -> list[Row]:
    """How far losses and gradients of the same steps are apart. A step that fp16 overflowed in has no gradient."""
    losses = max(abs(first - second) for first, second in zip(one.losses, other.losses, strict=True))
    norms = [pair for pair in zip(one.grad_norms, other.grad_norms, strict=True) if all(map(math.isfinite, pair))]
    gradients = max((100 * abs(first / second - 1) for first, second in norms), default=math.inf)
    return [
        row(f"{what}: losses apart, at most", losses, "nats", None, SAME_LOSS, losses <= SAME_LOSS),
        row(f"{what}: gradients apart, at most", gradients, "%", None, SAME_GRADIENT, gradients <= SAME_GRADIENT),
    ]


def out_of_memory(seed: int, frame: Frame) -> Iterator[Item]:
    """A step that cannot fit its limit has to be done all the same, in smaller parts."""
    measure_constants()
    yield from frame.attempt("running out of memory", partial(_out_of_memory, seed, frame))


def _out_of_memory(seed: int, frame: Frame) -> list[Row]:
    """The limit is a little above what the most frugal settings took; the step is begun with the most wasteful."""
    frugal = Comparison("", {}, {}, ("", ""), "llama-3.2-1b", {"train.optimizer": "adamw"})
    job = job_of(frugal, seed, frame)
    small = _changed(job, {"settings": {"train.micro_batch": 1, "train.gradient_checkpointing": "on"}})
    fits = run_job(small, frame.left())
    limit = fits.process + fits.reserved // 10
    wasteful = {"micro_batch": EFFECTIVE_BATCH, "checkpointing": "off"}
    job = replace(job, limit_bytes=limit, changes=wasteful)
    return _figures_of_shortage(run_job(job, frame.left()), fits, limit)


def _figures_of_shortage(outcome: Outcome, fits: Outcome, limit: int) -> list[Row]:
    what, chosen = "running out of memory, llama-3.2-1b", outcome.chosen
    end = f"{chosen['micro_batch']} at once, checkpointing {chosen['checkpointing']}"
    done, within = len(outcome.losses), outcome.process <= limit * SLACK
    return [
        row(f"{what}: steps down, to {end}", outcome.shortages, "times", None, 1, outcome.shortages >= 1),
        row(f"{what}: steps finished", done, "steps", len(fits.losses), STEPS, done == STEPS),
        row(f"{what}: memory", outcome.process / 1e9, "GB", fits.process / 1e9, limit / 1e9, within),
        *_apart(what, outcome, fits),
    ]
