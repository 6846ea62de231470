"""Planned memory against what torch and NVML read, for random-weight models of 0.5 to 13 billion parameters."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

from bench._gpu import has_gpu, measure_constants
from bench._gpu_frame import Frame, Item, Row, row, rows_of
from bench._gpu_run import Job, Outcome, run_job

MODELS = ("qwen2.5-0.5b", "llama-3.2-1b", "qwen2.5-3b", "llama-7b", "llama-3.1-8b", "llama-13b")
SETTINGS_EACH = 2
STEPS = 3
BARS = {"tensors": 2.0, "process": 4.0}
UNDER_BAR = 1.0
READINGS = ("tensors", "reserved", "process")


def rows(seed: int) -> list[Row]:
    """Rows of figures; none without a GPU."""
    if not has_gpu("the GPU's part"):
        return []
    return rows_of(measured(seed, Frame()))


def measured(seed: int, frame: Frame) -> Iterator[Item]:
    """Each model once, then each again, as long as there is time; then the verdicts on all of them."""
    measure_constants()
    draw = random.Random(seed)
    outcomes: list[Outcome] = []
    for model in frame.few(MODELS * SETTINGS_EACH):
        job = draw_job(frame, model, draw)
        yield from frame.attempt(f"planned memory: {_what(model, job)}", partial(_one, model, job, frame, outcomes))
    if outcomes:
        yield from verdicts(outcomes)


def _one(model: str, job: Job, frame: Frame, outcomes: list[Outcome]) -> list[Row]:
    outcomes.append(run_job(job, frame.left()))
    return _figures(model, job, outcomes[-1])


def draw_job(frame: Frame, model: str, draw: random.Random) -> Job:
    """A model with random settings: three steps of 16 conversations."""
    longest = frame.tokens(draw.choice([256, 512, 1024, 2048]))
    settings = {
        "lora.rank": draw.choice([8, 16, 64]),
        "quantization.double": draw.random() < 0.8,
        "train.effective_batch": 16,
        "train.max_steps": STEPS,
        "train.micro_batch": draw.choice([1, 2, 4]),
        "train.gradient_checkpointing": draw.choice(["auto", "on"]),
        "data.max_length": longest,
    }
    return Job(frame.config(model), settings, [draw.randint(longest // 2, longest) for _ in range(16 * STEPS)])


def _what(model: str, job: Job) -> str:
    return f"{model}, r {job.settings['lora.rank']}, {job.settings['data.max_length']:,} tokens"


def _figures(model: str, job: Job, outcome: Outcome) -> list[Row]:
    chosen = f"{outcome.chosen['micro_batch']} at once, checkpointing {outcome.chosen['checkpointing']}"
    what = f"{_what(model, job)}, {chosen}"
    return [
        row(f"{name} planned: {what}", outcome.predicted[name] / 1e9, "GB", getattr(outcome, name) / 1e9, None, None)
        for name in READINGS
    ]


def verdicts(outcomes: list[Outcome]) -> list[Row]:
    """The largest error of each reading against its bar, and the worst plan that promised too little."""
    errors = {name: [error_percent(each, name) for each in outcomes] for name in READINGS}
    found = []
    for name, bar in BARS.items():
        worst = max(errors[name], key=abs)
        found.append(row(f"worst error of {len(outcomes)}: {name}", worst, "%", None, bar, abs(worst) <= bar))
        under = -min(errors[name])
        found.append(row(f"most under: {name}", under, "%", None, UNDER_BAR, under <= UNDER_BAR))
    found.append(row("worst error: reserved", max(errors["reserved"], key=abs), "%", None, None, None))
    short = sum(each.shortages for each in outcomes)
    found.append(row("times that a planned step ran out of memory", short, "times", None, 0, short == 0))
    return found


def error_percent(outcome: Outcome, name: str) -> float:
    """The plan's error, in percent of what was read."""
    return 100 * (outcome.predicted[name] / getattr(outcome, name) - 1)
