"""LLaMA-65B with no more than 48 GB of a card, and LLaMA-7B with 12: the paper's claim, ten steps each.

The models have the real shapes and random weights, and rank 64 on all linear layers, as in the paper's recipes. A
second process holds the rest of the card. The figure is NVML's, for the whole process.
"""

from __future__ import annotations

from bench._gpu import Row, config_of, has_gpu, measure_constants, only, row
from bench._gpu_run import Job, Outcome, run_job

# (model, available bytes, tokens per conversation)
CLAIMS = (("llama-65b", 48 * 10**9, 512), ("llama-65b", 48 * 10**9, 2048), ("llama-7b", 12 * 10**9, 512))
STEPS = 10
EFFECTIVE_BATCH = 4


def main(seed: int = 0) -> list[Row]:
    """Rows of figures, as `bench NAME --json` prints them; none without a GPU."""
    if not has_gpu("this benchmark"):
        return []
    measure_constants()
    return [each for claim in CLAIMS for each in _claim(*claim, seed)]


def _claim(model: str, budget_bytes: int, length: int, seed: int) -> list[Row]:
    settings = {
        "lora.rank": 64,
        "train.effective_batch": EFFECTIVE_BATCH,
        "train.max_steps": STEPS,
        "train.seed": seed,
        "data.max_length": length,
    }
    with only(budget_bytes) as free:
        lengths = [length] * (EFFECTIVE_BATCH * STEPS)
        outcome = run_job(Job(config_of(model), settings, lengths, budget_bytes=min(budget_bytes, free)))
    return _figures(f"{model}, r 64, {length:,} tokens", budget_bytes, outcome)


def _figures(what: str, budget_bytes: int, outcome: Outcome) -> list[Row]:
    holds = outcome.process <= budget_bytes and len(outcome.losses) == STEPS
    planned = outcome.predicted["process"] / 1e9
    chosen = outcome.chosen
    way = f"{chosen['micro_batch']} at once, checkpointing {chosen['checkpointing']}, {chosen['optimizer']}"
    return [
        row(f"{what}: memory of the process ({way})", outcome.process / 1e9, "GB", planned, budget_bytes / 1e9, holds),
        row(f"{what}: speed", outcome.tokens_per_second, "tokens/s", None, None, None),
    ]
