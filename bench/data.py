"""From a file to tokens and loss mask, in rows per second: Nibble against trl's own preparation of the same rows.

Both read the same jsonl of conversations, render them with the same template, tokenise, and mark the replies. Nibble
also validates every row and proves every mask. They take turns for several rounds in one process, and the figure is
the median of the rounds' ratios.
"""

from __future__ import annotations

import json
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.recipe import DataSettings

ROWS = 4000
ROUNDS = 5
BAR = 1.5


def main(seed: int = 0) -> list[dict[str, Any]]:
    """Rows of figures, as `bench NAME --json` prints them."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        file = write_rows(Path(folder) / "rows.jsonl", ROWS, seed)
        reference, ours = _reference(file, Path(folder)), _ours(file)
        rounds = [(_timed(reference), _timed(ours)) for _ in range(ROUNDS + 1)][1:]  # the first warms both up
    theirs = ROWS / statistics.median(pair[0] for pair in rounds)
    nibble = ROWS / statistics.median(pair[1] for pair in rounds)
    ratio = statistics.median(pair[0] / pair[1] for pair in rounds)
    return [
        _row("file to tokens, trl's SFTTrainer", theirs, "rows/s", None, None),
        _row("file to tokens, Nibble", nibble, "rows/s", round(theirs, 1), None),
        _row("file to tokens, Nibble against trl", ratio, "times", 1.0, BAR),
    ]


def _row(name: str, value: float, unit: str, reference: float | None, bar: float | None) -> dict[str, Any]:
    holds = None if bar is None else value >= bar
    return {"name": name, "value": round(value, 3), "unit": unit, "reference": reference, "bar": bar, "holds": holds}


def _timed(action: Callable[[], int]) -> float:
    began = time.perf_counter()
    tokens = action()
    seconds = time.perf_counter() - began
    if tokens <= 0:
        raise RuntimeError("A preparation gave no tokens: nothing was measured.")
    return seconds


def write_rows(path: Path, rows: int, seed: int) -> Path:
    """A jsonl of `rows` conversations of one to three turns, about 1,000 characters each."""
    draw = random.Random(seed)
    words = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8").split()

    def text(most: int) -> str:
        return " ".join(draw.choice(words) for _ in range(draw.randint(8, most)))

    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            messages = []
            for _ in range(draw.randint(1, 3)):
                messages += [{"role": "user", "content": text(40)}, {"role": "assistant", "content": text(110)}]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return path


def _reference(file: Path, folder: Path) -> Callable[[], int]:
    """trl's preparation as its trainer does it, with the starter's tokenizer and template."""
    import datasets
    from transformers import AutoModelForCausalLM, LlamaConfig
    from trl import SFTConfig, SFTTrainer

    from core.basemodel.find import find_model
    from core.model.load import load_tokenizer

    datasets.disable_caching()
    datasets.disable_progress_bars()
    tokenizer = load_tokenizer(find_model("starter"))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    arguments = SFTConfig(
        output_dir=str(folder / "trl"),
        assistant_only_loss=True,
        max_length=DataSettings().max_length,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    few = datasets.Dataset.from_list(
        [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_config(config), args=arguments, train_dataset=few, processing_class=tokenizer
    )

    def prepare() -> int:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            rows = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=cache)
            prepared = trainer._prepare_dataset(rows, tokenizer, arguments, False, None, "train")
            return sum(len(ids) for ids in prepared["input_ids"])

    return prepare


def _ours(file: Path) -> Callable[[], int]:
    """Read, recognise, validate, render, tokenise and mask every row."""
    from core.basemodel.find import find_model
    from core.data.dataset import load
    from core.data.rendering.render import render_all
    from core.model.load import load_tokenizer

    tokenizer = load_tokenizer(find_model("starter"))
    settings = DataSettings()

    def prepare() -> int:
        return render_all(tokenizer, load(file, settings), settings).usable.tokens

    return prepare
