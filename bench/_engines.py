"""What `bench train` lets train in turns: Nibble's engine, and trl's SFTTrainer tuned by hand or with its defaults.

All have the same base in NF4 with double quantisation, the same adapter, the same effective batch size, and in every
turn the same conversations with the same targets. Only the time of optimizer steps is counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import BitsAndBytesConfig, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from core.basemodel.find import find_model
from core.data.batches import MicroBatches
from core.data.dataset import load
from core.data.rendering.render import render_all
from core.memory.budget import read_budget
from core.model.load import attach_lora, cast_adapters, dtype_for, load_base, load_tokenizer
from core.recipe import Recipe
from core.step.adapter_dtype import adapter_dtype
from core.step.optimizer import optimizer_for
from core.step.packing import settle_packing
from core.system.hardware import device
from core.train.decide import choose
from core.train.trainer import NibbleTrainer
from core.train.trl_config import trainer_config

# What somebody who knows trl sets on a CPU besides the dtype: where memory is no question, nothing is recomputed.
TUNED_BATCH = 8


class OutOfTime(Exception):
    """The time for what is measured is over."""


class StepTimer(TrainerCallback):
    """Adds up the `seconds` of the optimizer steps, without the time between them."""

    seconds = 0.0
    began = 0.0

    def on_step_begin(self, *rest: Any, **named: Any) -> None:
        """Called by transformers before the first micro-batch of a step."""
        self.began = time.perf_counter()

    def on_step_end(self, *rest: Any, **named: Any) -> None:
        """Called by transformers after the optimizer has stepped."""
        self.seconds += time.perf_counter() - self.began


class Trl:
    """trl's SFTTrainer over the conversations in `file`: tuned by hand, or as its documentation has it.

    Tuned means: computation and adapters in the dtype that is fast on this device, no checkpointing, 8 conversations at
    once, and a loss of the replies alone, as Nibble's.
    """

    def __init__(self, recipe: Recipe, folder: Path, file: Path, steps: int, tuned: bool = True) -> None:
        found, (fast, _) = find_model(recipe.model), dtype_for(device())
        rows = Dataset.from_list([{"messages": each.messages} for each in load(file, recipe.data).usable])
        bf16 = fast == torch.bfloat16
        settings: dict[str, Any] = {}
        if tuned:
            settings = {"bf16": bf16, "model_init_kwargs": {"dtype": fast}, "gradient_checkpointing": False}
            settings |= {"per_device_train_batch_size": TUNED_BATCH, "assistant_only_loss": True}
        size = TUNED_BATCH if tuned else SFTConfig.per_device_train_batch_size
        engine = self

        class Counting(SFTTrainer):
            def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
                loss = super().training_step(model, inputs, *rest, **named)
                engine.tokens += int(inputs["attention_mask"].sum())
                engine.until = time.perf_counter()
                return loss

        self.timer, self.tokens, self.until = StepTimer(), 0, 0.0
        self.trainer = Counting(
            model=found.source,
            args=SFTConfig(
                output_dir=str(folder / "reference"),
                max_steps=steps,
                gradient_accumulation_steps=recipe.train.effective_batch // size,
                train_sampling_strategy="sequential",
                seed=recipe.train.seed,
                max_length=recipe.data.max_length,
                report_to="none",
                disable_tqdm=True,
                save_strategy="no",
                use_cpu=not torch.cuda.is_available(),
                **settings,
            ),
            train_dataset=rows,
            processing_class=load_tokenizer(found),
            quantization_config=BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=fast if tuned else None,
            ),
            peft_config=LoraConfig(
                r=recipe.lora.rank,
                lora_alpha=recipe.lora.alpha,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
            callbacks=[self.timer],
        )
        self.trainer.remove_callback(PrinterCallback)
        if tuned:
            cast_adapters(self.trainer.model, fast)
        self.rows = self.trainer.train_dataset

    def round(self, order: list[list[int]]) -> float:
        """Train the optimizer steps of `order`, each a list of rows. Returns real tokens per second."""
        self.tokens, self.timer.seconds = 0, 0.0
        self.trainer.train_dataset = self.rows.select([row for step in order for row in step])
        self.trainer.train()
        return self.tokens / self.timer.seconds

    def within(self, end: float, order: list[list[int]]) -> float | None:
        """As `round`, but cut off at `end` (time.monotonic()): the speed in whole micro-batches; None without one."""
        began, self.until = time.perf_counter(), 0.0
        with time_limit(end):
            return self.round(order)
        return self.tokens / (self.until - began) if self.until else None


@contextmanager
def time_limit(end: float) -> Iterator[None]:
    """At `end` (time.monotonic()) what is inside ends, in the next module that begins its forward pass, unfinished."""

    def look(*_: Any) -> None:
        if time.monotonic() > end:
            raise OutOfTime

    hook = register_module_forward_pre_hook(look)
    try:
        yield
    except OutOfTime:
        pass
    finally:
        hook.remove()


class Nibble:
    """Nibble's engine as `train` runs it, without the files of a run."""

    def __init__(self, recipe: Recipe, folder: Path, file: Path, steps: int) -> None:
        found = find_model(recipe.model)
        tokenizer = load_tokenizer(found)
        rows = render_all(tokenizer, load(file, recipe.data), recipe.data).usable
        model = adapted(load_base(found, recipe.quantization, device()), recipe)
        dtype, _ = dtype_for(device())
        packed, varlen, _ = settle_packing(model, recipe.train, device().kind, dtype)
        choices = choose(recipe, found, rows, read_budget(recipe, found, device()), packed, varlen)
        recipe, strategy = choices.settle(recipe, model), choices.strategy
        config = trainer_config(recipe, folder, device().kind, dtype, steps, strategy)
        self.timer = StepTimer()
        self.dealt = lambda order: MicroBatches(rows, order, strategy.micro_batch, packed)
        batches = self.dealt([[0] * recipe.train.effective_batch])
        mode, fused = strategy.checkpointing, strategy.fused_lora
        self.trainer = NibbleTrainer(model, tokenizer, batches, config, self.timer, mode, fused=fused)

    def round(self, order: list[list[int]]) -> float:
        """Train the optimizer steps of `order`, each a list of rows. Returns real tokens per second."""
        self.trainer.real_tokens, self.timer.seconds = 0, 0.0
        self.trainer.batches = self.dealt(order)
        self.trainer.train()
        return self.trainer.real_tokens / self.timer.seconds


def adapted(base: Any, recipe: Recipe) -> Any:
    """The base with the recipe's adapter, in the dtype that a run would train it in."""
    dtype, _ = dtype_for(device())
    return attach_lora(base, recipe.lora, adapter_dtype(dtype, optimizer_for(recipe.train.optimizer), device().kind))
