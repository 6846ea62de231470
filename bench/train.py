"""Training speed in real tokens per second: Nibble's engine against trl's SFTTrainer, as it is and mended by hand.

All have the same base in NF4 with double quantisation, the same conversations of mixed lengths, the same adapter and
the same effective batch size. They take turns for several rounds in one process, and the figure is the median of the
rounds' ratios, so other load on the machine slows all. Mended means: base and adapters compute in the dtype that is
fast on this device, as somebody would set it who has found out why the defaults are slow.
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
from core.data.dataset import load
from core.data.samples import find_sample
from core.recipe import DataSettings, Recipe, make_recipe

ROUNDS = 3
STEPS = 8
BAR = 3.0
BAR_MENDED = 1.3
ROWS = 256
MOST_EXCHANGES = 16
MAX_LENGTH = 1024


def main(seed: int = 0) -> list[dict[str, Any]]:
    """Rows of figures, as `bench NAME --json` prints them."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    recipe = make_recipe({"model": "starter", "train.seed": seed, "data.max_length": MAX_LENGTH})
    with tempfile.TemporaryDirectory() as folder:
        rows = mixed_rows(Path(folder) / "rows.jsonl", seed)
        defaults, mended = _Reference(recipe, Path(folder), rows), _Reference(recipe, Path(folder), rows, mended=True)
        ours = _Ours(recipe, Path(folder), rows)
        rounds = [(defaults.round(), mended.round(), ours.round()) for _ in range(ROUNDS + 1)][1:]  # one warms up
    theirs, by_hand, nibble = (statistics.median(each) for each in zip(*rounds, strict=True))
    against_defaults = statistics.median(third / first for first, _, third in rounds)
    against_mended = statistics.median(third / second for _, second, third in rounds)
    return [
        _row("training, trl's SFTTrainer with its defaults", theirs, "tokens/s", None, None),
        _row("training, trl's SFTTrainer with the dtype mended by hand", by_hand, "tokens/s", None, None),
        _row("training, Nibble", nibble, "tokens/s", round(theirs, 1), None),
        _row("training, Nibble against trl's defaults", against_defaults, "times", 1.0, BAR),
        _row("training, Nibble against trl mended by hand", against_mended, "times", 1.0, BAR_MENDED),
        *fused_rows(),
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


def _row(name: str, value: float, unit: str, reference: float | None, bar: float | None) -> dict[str, Any]:
    holds = None if bar is None else value >= bar
    return {"name": name, "value": round(value, 3), "unit": unit, "reference": reference, "bar": bar, "holds": holds}


def step_timer() -> Any:
    """A callback that adds up the `seconds` of the optimizer steps, without the time between them."""
    from transformers import TrainerCallback

    class StepTimer(TrainerCallback):
        seconds = 0.0
        began = 0.0

        def on_step_begin(self, *rest: Any, **named: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *rest: Any, **named: Any) -> None:
            self.seconds += time.perf_counter() - self.began

    return StepTimer()


class _Reference:
    """trl's SFTTrainer as in its documentation: a model, NF4, a LoRA, a dataset, and nothing else set.

    With `mended`, computation and adapters are in the dtype that is fast on this device.
    """

    def __init__(self, recipe: Recipe, folder: Path, file: Path, mended: bool = False) -> None:
        import torch
        from datasets import Dataset
        from peft import LoraConfig
        from transformers import BitsAndBytesConfig
        from trl import SFTConfig, SFTTrainer

        from core.basemodel.find import find_model
        from core.model.load import cast_adapters, dtype_for, load_tokenizer
        from core.system.hardware import device

        found = find_model(recipe.model)
        fast, _ = dtype_for(device())
        rows = Dataset.from_list([{"messages": each.messages} for each in load(file, recipe.data).usable])
        dtypes = {"bf16": fast == torch.bfloat16, "model_init_kwargs": {"dtype": fast}} if mended else {}

        class Counting(SFTTrainer):
            real_tokens = 0

            def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
                Counting.real_tokens += int(inputs["attention_mask"].sum())
                return super().training_step(model, inputs, *rest, **named)

        self.counting, self.timer = Counting, step_timer()
        self.trainer = Counting(
            model=found.source,
            args=SFTConfig(
                output_dir=str(folder / "reference"),
                max_steps=STEPS,
                gradient_accumulation_steps=recipe.train.effective_batch // SFTConfig.per_device_train_batch_size,
                seed=recipe.train.seed,
                report_to="none",
                disable_tqdm=True,
                save_strategy="no",
                use_cpu=not torch.cuda.is_available(),
                **dtypes,
            ),
            train_dataset=rows,
            processing_class=load_tokenizer(found),
            quantization_config=BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
            ),
            peft_config=LoraConfig(
                r=recipe.lora.rank,
                lora_alpha=recipe.lora.alpha,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
            callbacks=[self.timer],
        )
        if mended:
            cast_adapters(self.trainer.model, fast)

    def round(self) -> float:
        """Train STEPS steps. Returns real tokens per second."""
        self.counting.real_tokens, self.timer.seconds = 0, 0.0
        self.trainer.train()
        return float(self.counting.real_tokens / self.timer.seconds)


class _Ours:
    """Nibble's engine as `train` runs it, without the files of a run."""

    def __init__(self, recipe: Recipe, folder: Path, file: Path) -> None:
        from core.basemodel.find import find_model
        from core.data.batches import MicroBatches, data_order
        from core.data.rendering.render import render_all
        from core.memory.budget import read_budget
        from core.model.load import attach_lora, dtype_for, load_base, load_tokenizer
        from core.step.adapter_dtype import adapter_dtype
        from core.step.optimizer import optimizer_for
        from core.step.packing import packing_is_exact
        from core.system.hardware import device
        from core.train.decide import choose
        from core.train.trainer import NibbleTrainer
        from core.train.trl_config import trainer_config

        found, chosen = find_model(recipe.model), device()
        tokenizer = load_tokenizer(found)
        rows = render_all(tokenizer, load(file, recipe.data), recipe.data).usable
        dtype, _ = dtype_for(chosen)
        base = load_base(found, recipe.quantization, chosen)
        model = attach_lora(base, recipe.lora, adapter_dtype(dtype, optimizer_for(recipe.train.optimizer), chosen.kind))
        budget = read_budget(recipe, found, chosen)
        choices = choose(recipe, found, rows, budget, packing_is_exact(model))
        order = data_order(len(rows), STEPS, recipe.train.effective_batch, recipe.train.seed)
        size, checkpointing = choices.strategy.micro_batch, choices.strategy.checkpointing
        config = trainer_config(recipe, folder, chosen.kind, dtype, STEPS, choices.strategy)

        self.timer = step_timer()
        batches = MicroBatches(rows, order, size, choices.packed)
        fused = choices.strategy.fused_lora
        self.trainer = NibbleTrainer(model, tokenizer, batches, config, self.timer, checkpointing, fused=fused)

    def round(self) -> float:
        """Train STEPS steps. Returns real tokens per second."""
        self.trainer.real_tokens, self.timer.seconds = 0, 0.0
        self.trainer.train()
        return self.trainer.real_tokens / self.timer.seconds
