"""Training speed in real tokens per second: Nibble's engine against trl's SFTTrainer tuned by hand.

Conversations of mixed lengths, on the starter. Both take turns for several rounds in one process, and the figure is the
median of the rounds' ratios, so other load on the machine slows both. trl with its defaults is shown beside it, cut off
after a minute. Then a model of 135M parameters: which share of the processor's own matrix rate a step reaches. Every
part has a limit in time, and all of it ends within five minutes.
"""

from __future__ import annotations

import json
import logging
import random
import statistics
import tempfile
import time
import warnings
from pathlib import Path

from bench._fused import rows as fused_rows
from bench._gpu_frame import Row, row
from core.data.batches import data_order
from core.data.dataset import load
from core.data.samples import find_sample
from core.recipe import DataSettings, Recipe, make_recipe
from core.system.hardware import device

# Of five minutes: when all measuring ends, and what of it the first part leaves to the others once it has a figure.
SECONDS, SHARE_SECONDS, DEFAULTS_SECONDS = 265, 70, 60
ROUNDS = 15
STEPS = 1
BAR = 3.0
BAR_SHARE = 70.0
ROWS = 256
MOST_EXCHANGES = 16
MAX_LENGTH = 1024


def main(seed: int = 0) -> list[Row]:
    """Rows of figures, as `bench NAME --json` prints them."""
    end = time.monotonic() + SECONDS
    _be_quiet()
    recipe = make_recipe({"model": "starter", "train.seed": seed, "data.max_length": MAX_LENGTH})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = mixed_rows(folder / "rows.jsonl", seed)
        rows = _against_tuned(recipe, folder, file, end)
        rows += fused_rows() if device().kind == "cuda" else _share(recipe, folder, end)
        return rows + _defaults_beside(recipe, folder, file, end)


def _be_quiet() -> None:
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def _against_tuned(recipe: Recipe, folder: Path, file: Path, end: float) -> list[Row]:
    from bench._engines import Nibble, Trl, time_limit

    nibble, tuned = Nibble(recipe, folder, file, STEPS), Trl(recipe, folder, file, STEPS)
    turns = _turns(recipe, len(tuned.rows))
    rounds: list[tuple[float, float]] = []
    with time_limit(end):
        nibble.round(turns[0][:1]), tuned.round(turns[0][:1])  # they warm up
        for turn in turns:
            if rounds and time.monotonic() > end - SHARE_SECONDS - DEFAULTS_SECONDS:
                break
            rounds.append((nibble.round(turn), tuned.round(turn)))
    if not rounds:
        return [_too_slow("training, Nibble against trl tuned by hand", "times", BAR)]
    ours, theirs = (statistics.median(each) for each in zip(*rounds, strict=True))
    ratio = statistics.median(first / second for first, second in rounds)
    name = f"training, Nibble against trl tuned by hand, {len(rounds)} rounds"
    return [
        row("training, trl's SFTTrainer tuned by hand", theirs, "tokens/s", None, None, None),
        row("training, Nibble", ours, "tokens/s", theirs, None, None),
        row(name, ratio, "times", 1.0, BAR, ratio >= BAR),
    ]


def _turns(recipe: Recipe, rows: int) -> list[list[list[int]]]:
    """The rows of each optimizer step of each round."""
    order = data_order(rows, ROUNDS * STEPS, recipe.train.effective_batch, recipe.train.seed)
    return [order[start : start + STEPS] for start in range(0, len(order), STEPS)]


def _defaults_beside(recipe: Recipe, folder: Path, file: Path, end: float) -> list[Row]:
    """Their speed beside the rest, without a bar: on a processor without AMX they are slow for their dtype alone."""
    from bench._engines import Trl

    if time.monotonic() > end:
        return [_too_slow("training, trl's SFTTrainer with its defaults", "tokens/s", None)]
    defaults = Trl(recipe, folder, file, STEPS, tuned=False)
    now = time.monotonic()
    found = defaults.within(min(end, now + DEFAULTS_SECONDS), _turns(recipe, len(defaults.rows))[0])
    if found is None:
        return [_too_slow("training, trl's SFTTrainer with its defaults", "tokens/s", None)]
    return [row("training, trl's SFTTrainer with its defaults, not in turns", found, "tokens/s", None, None, None)]


def _share(recipe: Recipe, folder: Path, end: float) -> list[Row]:
    from bench._matrix_share import LENGTH, MODEL, matrix_share

    what, found = f"{MODEL}'s shape, {LENGTH} tokens", matrix_share(recipe, folder, end, DEFAULTS_SECONDS)
    name = f"{what}: share of the processor's matrix rate"
    if found is None:
        return [_too_slow(name, "%", BAR_SHARE)]
    return [
        row(f"{what}: training", found.tokens_per_second, "tokens/s", None, None, None),
        row(f"{what}: the processor's matrix rate", found.operations_per_second / 1e9, "GFLOP/s", None, None, None),
        row(name, found.percent, "%", 100.0, BAR_SHARE, found.percent >= BAR_SHARE),
    ]


def _too_slow(name: str, unit: str, bar: float | None) -> Row:
    return row(f"{name}: not once within its time", 0, unit, None, bar, None if bar is None else False)


def mixed_rows(file: Path, seed: int) -> Path:
    """Write conversations of 1 to 16 exchanges of a sample to `file` as jsonl, short ones more often."""
    sample = find_sample("pirate")
    if sample is None:
        raise FileNotFoundError("presets/datasets has no sample named pirate")
    exchanges = [each.messages for each in load(sample.path, DataSettings()).usable]
    draw = random.Random(seed)
    with file.open("w", encoding="utf-8") as handle:
        for _ in range(ROWS):
            count = round(MOST_EXCHANGES ** draw.random())
            messages = [message for exchange in draw.sample(exchanges, count) for message in exchange]
            handle.write(json.dumps({"messages": messages}) + "\n")
    return file
