"""LLaMA-65B with no more than 48 GB of a card, and LLaMA-7B with 12: the paper's claim, ten steps each.

The models have the real shapes and random weights, and rank 64 on all linear layers, as in the paper's recipes. A
second process holds the rest of the card. The figure is NVML's, for the whole process.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench._gpu import has_gpu, measure_constants, only
from bench._gpu_frame import Frame, Item, NotHere, Row, row, rows_of
from bench._gpu_run import Job, Outcome, run_job
from core.sizes import show_size
from core.system.hardware import device

# (model, available bytes, tokens per conversation)
Claim = tuple[str, int, int]
CLAIMS: tuple[Claim, ...] = (
    ("llama-7b", 12 * 10**9, 512),
    ("llama-65b", 48 * 10**9, 512),
    ("llama-65b", 48 * 10**9, 2048),
)
STEPS = 10
EFFECTIVE_BATCH = 4


def main(seed: int = 0) -> list[Row]:
    """Rows of figures, as `bench NAME --json` prints them; none without a GPU."""
    if not has_gpu("this benchmark"):
        return []
    return rows_of(measured(seed, Frame()))


def measured(seed: int, frame: Frame) -> Iterator[Item]:
    """The rows of each claim."""
    measure_constants()
    for claim in frame.few(CLAIMS):
        yield from frame.attempt(f"headline: {_what(claim)}", partial(_claim, claim, seed, frame))


def _what(claim: Claim) -> str:
    model, _, length = claim
    return f"{model}, r 64, {length:,} tokens"


def _claim(claim: Claim, seed: int, frame: Frame) -> list[Row]:
    model, budget_bytes, length = claim[0], frame.bytes(claim[1]), frame.tokens(claim[2])
    settings = {
        "lora.rank": 64,
        "train.effective_batch": EFFECTIVE_BATCH,
        "train.max_steps": STEPS,
        "train.seed": seed,
        "data.max_length": length,
    }
    if device().free_bytes < budget_bytes:
        raise NotHere(f"this card has only {show_size(device().free_bytes)} free, not {show_size(budget_bytes)}.")
    with only(budget_bytes) as free:
        lengths = [length] * (EFFECTIVE_BATCH * STEPS)
        job = Job(frame.config(model), settings, lengths, budget_bytes=min(budget_bytes, free))
        outcome = run_job(job, frame.left())
    return _figures(_what(claim), budget_bytes, outcome)


def _figures(what: str, budget_bytes: int, outcome: Outcome) -> list[Row]:
    holds = outcome.process <= budget_bytes and len(outcome.losses) == STEPS
    planned = outcome.predicted["process"] / 1e9
    chosen = outcome.chosen
    way = f"{chosen['micro_batch']} at once, checkpointing {chosen['checkpointing']}, {chosen['optimizer']}"
    return [
        row(f"{what}: memory of the process ({way})", outcome.process / 1e9, "GB", planned, budget_bytes / 1e9, holds),
        row(f"{what}: speed", outcome.tokens_per_second, "tokens/s", None, None, None),
    ]
