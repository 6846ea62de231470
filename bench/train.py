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
from typing import Any

from bench._fused import rows as fused_rows
from bench._gpu import row
from core.data.batches import data_order
from core.data.dataset import load
from core.data.samples import find_sample
from core.recipe import DataSettings, Recipe, make_recipe
from core.system.hardware import device

SECONDS = 270  # of five minutes, for all but the import of the libraries and the last turn
SHARE_SECONDS = 70
DEFAULTS_SECONDS = 60
ROUNDS, LEAST_ROUNDS = 9, 3
STEPS = 2
BAR = 3.0
BAR_SHARE = 70.0
ROWS = 256
MOST_EXCHANGES = 16
MAX_LENGTH = 1024


def main(seed: int = 0) -> list[dict[str, Any]]:
    """Rows of figures, as `bench NAME --json` prints them."""
    from transformers.utils import logging as transformers_logging

    end = time.monotonic() + SECONDS
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    recipe = make_recipe({"model": "starter", "train.seed": seed, "data.max_length": MAX_LENGTH})
    with tempfile.TemporaryDirectory() as folder:
        file = mixed_rows(Path(folder) / "rows.jsonl", seed)
        rows = _against_trl(recipe, Path(folder), file, end)
        return [*rows, *(fused_rows() if device().kind == "cuda" else _share(recipe, Path(folder), end))]


def _against_trl(recipe: Recipe, folder: Path, file: Path, end: float) -> list[dict[str, Any]]:
    from bench._engines import Nibble, Trl

    nibble, tuned = Nibble(recipe, folder, file, STEPS), Trl(recipe, folder, file, STEPS)
    order = data_order(len(tuned.rows), ROUNDS * STEPS, recipe.train.effective_batch, recipe.train.seed)
    turns = [order[start : start + STEPS] for start in range(0, len(order), STEPS)]
    nibble.round(order[:1]), tuned.round(order[:1])  # they warm up
    rounds: list[tuple[float, float]] = []
    last = end - SHARE_SECONDS - DEFAULTS_SECONDS
    for turn in turns:
        if len(rounds) >= LEAST_ROUNDS and time.monotonic() > last:
            break
        rounds.append((nibble.round(turn), tuned.round(turn)))
    ours, theirs = (statistics.median(each) for each in zip(*rounds, strict=True))
    ratio = statistics.median(first / second for first, second in rounds)
    defaults = Trl(recipe, folder, file, STEPS, tuned=False).within(DEFAULTS_SECONDS, turns[0])
    return [
        row("training, trl's SFTTrainer with its defaults", defaults, "tokens/s", None, None, None),
        row("training, trl's SFTTrainer tuned by hand", theirs, "tokens/s", None, None, None),
        row("training, Nibble", ours, "tokens/s", theirs, None, None),
        row("training, Nibble against trl's defaults", ours / defaults, "times", 1.0, None, None),
        row(f"training, Nibble against trl tuned by hand, {len(rounds)} rounds", ratio, "times", 1.0, BAR, ratio >= BAR),
    ]


def _share(recipe: Recipe, folder: Path, end: float) -> list[dict[str, Any]]:
    from bench._matrix_share import LENGTH, MODEL, matrix_share

    found = matrix_share(recipe, folder, end)
    what, rate = f"{MODEL}'s shape, {LENGTH} tokens", found.operations_per_second
    name = f"{what}: share of the processor's matrix rate"
    return [
        row(f"{what}: training", found.tokens_per_second, "tokens/s", None, None, None),
        row(f"{what}: the processor's matrix rate", rate / 1e9, "GFLOP/s", None, None, None),
        row(name, found.percent, "%", 100.0, BAR_SHARE, found.percent >= BAR_SHARE),
    ]


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
