"""What trains a GPU benchmark's model: Nibble's engine, trl's SFTTrainer with its defaults, or trl tuned by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer

from bench._gpu_frame import NotHere
from bench._gpu_run import Highest, Job, Learned, Timer, rows_of_lengths
from core.basemodel.find import find_model
from core.data.batches import MicroBatches, data_order
from core.memory.budget import Budget
from core.memory.estimate import Architecture, planning_problem, target_for
from core.memory.plan import plan
from core.memory.problem import PlanningProblem
from core.memory.workload import ConversationLength
from core.model.load import attach_lora, cast_adapters, load_tokenizer
from core.recipe import Recipe
from core.step.adapter_dtype import adapter_dtype
from core.step.optimizer import optimizer_for
from core.step.packing import Packing, settle_packing
from core.system.hardware import device
from core.system.managed_memory import pages_states
from core.train.decide import Choices
from core.train.memory_limit import enforce
from core.train.oom_retry import OomFallback, Shortage, attempt
from core.train.trainer import NibbleTrainer
from core.train.trl_config import trainer_config

# What trl is tuned with is tried for so many steps, the first of which warms up.
TRIAL_STEPS = 2
# Conversations at once that somebody would try besides the most that fit: padding grows with them.
USUAL_BATCH = 8


def nibble(job: Job, recipe: Recipe, base: Any, dtype: Any, parameters: int, highest: Highest) -> Learned:
    """Nibble's engine as `train` runs it, with the plan that it would have made, but without a run's files."""
    card = device()
    pages = pages_states(card)
    adapters = adapter_dtype(dtype, optimizer_for(recipe.train.optimizer, pages), card.kind)
    model = attach_lora(base, recipe.lora, adapters)
    packing = settle_packing(model, recipe.train, card.kind, dtype)
    problem = _problem(job, recipe, parameters, packing)
    planned = plan(problem)
    if planned.strategy is None:
        raise NotHere(f"it does not fit: {planned.reasons[0]['because']}.")
    strategy = replace(planned.strategy, **job.changes)
    peak = problem.peak(strategy)
    limit = job.limit_bytes or job.budget_bytes
    if limit is not None:
        enforce(limit, card, peak.traced.managed)
    settled = Choices(strategy, packing.packed, planned, planned.reasons, max(job.lengths)).settle(recipe, model)
    steps, timer, shortages = recipe.train.max_steps or 1, Timer(), []
    rows = rows_of_lengths(job.lengths)
    order = data_order(len(rows), steps, recipe.train.effective_batch, recipe.train.seed)
    report, has_ram = (lambda *change: shortages.append(change)), problem.has_ram_for
    fallback = OomFallback(strategy, recipe.train.effective_batch, report, card.kind, has_ram)
    with tempfile.TemporaryDirectory() as folder:
        config = trainer_config(settled, Path(folder), card.kind, dtype, steps, strategy, pages)
        batches = MicroBatches(rows, order, strategy.micro_batch, packing.packed)
        tokenizer = load_tokenizer(find_model("starter"))
        trainer = NibbleTrainer(
            model,
            tokenizer,
            batches,
            config,
            timer.callback(),
            strategy.checkpointing,
            fallback,
            fused=strategy.fused_lora,
        )
        timer.tokens = lambda: trainer.real_tokens
        trainer.train()
    chosen = fallback.strategy.as_json(recipe.train.effective_batch)
    logged = _logged(trainer, "loss"), _logged(trainer, "grad_norm")
    return Learned(chosen, peak.as_json(), timer.tokens_per_second(), *logged, len(shortages))


def _problem(job: Job, recipe: Recipe, parameters: int, packing: Packing) -> PlanningProblem:
    """The planning problem: this job on this machine's device within its budget."""
    conversations = [ConversationLength(length, length - 1) for length in job.lengths]
    architecture = Architecture("random", job.config, parameters, True)
    target, packed, varlen = target_for(None), packing.packed, packing.varlen
    problem = planning_problem(recipe, target, architecture, conversations, packed, varlen=varlen)
    return problem if job.budget_bytes is None else replace(problem, budget=Budget(job.budget_bytes, "the job's", 0))


def _logged(trainer: Any, name: str) -> list[float]:
    return [each[name] for each in trainer.state.log_history if name in each]


def trl_defaults(job: Job, recipe: Recipe, base: Any, dtype: Any, parameters: int, highest: Highest) -> Learned:
    """trl's SFTTrainer with its defaults and the same effective batch; the micro-batch is the recipe's, if given."""
    size = recipe.train.micro_batch or min(SFTConfig.per_device_train_batch_size, recipe.train.effective_batch)
    with _sft_trainer(job, recipe, base, size) as (trainer, timer):
        if isinstance(attempt(trainer.train), Shortage):
            raise NotHere(f"trl's SFTTrainer with its defaults ran out of memory ({size} conversations at once).")
        return Learned({"micro_batch": size}, {}, timer.tokens_per_second(), _logged(trainer, "loss"))


def trl_tuned(job: Job, recipe: Recipe, base: Any, dtype: Any, parameters: int, highest: Highest) -> Learned:
    """trl's SFTTrainer by somebody who knows it: the card's dtype, and of the settings that fit, the fastest.

    Tried are, without and with gradient checkpointing, the most conversations at once that fit, and the usual 8.
    """
    import torch

    fp16 = dtype == torch.float16
    with _sft_trainer(job, recipe, base, 1, fp16=fp16, bf16=dtype == torch.bfloat16) as (trainer, timer):
        if fp16:  # trl has put them in bf16, which such a card is slow in and its scaler cannot unscale
            cast_adapters(trainer.model, torch.float32)
        speeds = dict(_trials(trainer, timer, recipe.train.effective_batch))
        if not speeds:
            raise NotHere("trl's SFTTrainer runs out of memory with any setting.")
        best = max(speeds, key=lambda each: speeds[each])
        highest.forget()
        _set(trainer, *best, steps=recipe.train.max_steps or 1, effective=recipe.train.effective_batch)
        trainer.train()
        chosen = {"checkpointing": "full" if best[0] else "off", "micro_batch": best[1]}
        return Learned(chosen, {}, timer.tokens_per_second(), _logged(trainer, "loss"))


def _trials(trainer: Any, timer: Timer, effective: int) -> Iterator[tuple[tuple[bool, int], float]]:
    """((checkpointing, conversations at once), tokens per second) of the settings that fit and are worth a try."""
    for checkpointing in (False, True):
        sizes = [size for size in range(effective, 0, -1) if effective % size == 0]
        largest = next((size for size in sizes if _fits(trainer, checkpointing, size, effective)), None)
        if largest is None:
            continue
        yield (checkpointing, largest), timer.tokens_per_second()
        if largest > USUAL_BATCH and effective % USUAL_BATCH == 0:
            _fits(trainer, checkpointing, USUAL_BATCH, effective)
            yield (checkpointing, USUAL_BATCH), timer.tokens_per_second()


def _fits(trainer: Any, checkpointing: bool, size: int, effective: int) -> bool:
    _set(trainer, checkpointing, size, TRIAL_STEPS, effective)
    fits = not isinstance(attempt(trainer.train), Shortage)
    trainer.model.zero_grad(set_to_none=True)
    return fits


def _set(trainer: Any, checkpointing: bool, size: int, steps: int, effective: int) -> None:
    """Set what the next `train()` does.

    transformers 5.23, trainer.py: the batch size is kept in `_train_batch_size` too, and a training turns checkpointing
    on where it is wanted but never off.
    """
    trainer.args.max_steps, trainer.args.activation_checkpointing = steps, checkpointing
    trainer.args.per_device_train_batch_size = trainer._train_batch_size = size
    trainer.args.gradient_accumulation_steps = effective // size
    if not checkpointing:
        trainer.model.get_base_model().activation_checkpointing_disable()


@contextmanager
def _sft_trainer(
    job: Job, recipe: Recipe, base: PreTrainedModel, size: int, **settings: Any
) -> Iterator[tuple[Any, Timer]]:
    """trl's SFTTrainer over the job's conversations, `size` at once, and a timer of its real tokens."""
    timer, counted = Timer(), {"tokens": 0}
    timer.tokens = lambda: counted["tokens"]
    rows = [{"input_ids": each.ids, "labels": each.ids} for each in rows_of_lengths(job.lengths)]

    class Counting(SFTTrainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            counted["tokens"] += int(inputs["attention_mask"].sum())
            return super().training_step(model, inputs, *rest, **named)

    lora = LoraConfig(
        r=recipe.lora.rank, lora_alpha=recipe.lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_steps=recipe.train.max_steps,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=recipe.train.effective_batch // size,
            max_length=recipe.data.max_length,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            logging_steps=1,
            use_cpu=device().kind == "cpu",
            **settings,
        )
        trainer = Counting(
            model=base,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(find_model("starter")),
            peft_config=lora,
            callbacks=[timer.callback()],
        )
        yield trainer, timer


ENGINES = {"nibble": nibble, "trl": trl_defaults, "tuned": trl_tuned}
