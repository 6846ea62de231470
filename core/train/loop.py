"""One training run from its recipe to its adapter, to be read from top to bottom.

Covered: one device or several, a base in 4, 8 or 16 bits, LoRA, packed micro-batches, an evaluation loss and the best
adapter by it, stop, save and resume at any step, running out of memory, and a loss that is not a number.
"""

import os
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import set_seed

from core.basemodel.find import TEMPLATE_FILE, FoundModel
from core.basemodel.pin import FILE, hashing_meanwhile
from core.data.batches import MicroBatches, data_order, steps_for
from core.data.rendering.template import require_template
from core.memory.budget import Budget, read_budget
from core.memory.optimizer_states import OptimizerStates
from core.model.fit import refuse_misfit
from core.model.load import (
    attach_lora,
    dtype_for,
    is_out_of_memory,
    load_base,
    load_tokenizer,
    parameters_trained,
    quantised,
    torch_device,
)
from core.model.lora_config import targets_note
from core.model.stored import Stores
from core.model.stream.source import UnreadableBlock
from core.model.vocabulary import embedding_rows
from core.recipe import Recipe
from core.runs.heartbeat import HeartbeatWriter
from core.runs.store import Run
from core.step.adapter_dtype import adapter_dtype
from core.step.objective import objective_of
from core.step.optimizer import OPTIMIZERS, optimizer_for
from core.step.packing import Packing, settle_packing
from core.system.allocator import return_memory
from core.system.hardware import Device, device
from core.system.managed_memory import pages_states
from core.train import ending
from core.train.advice import advice
from core.train.base_model import have_base
from core.train.checkpoints import restore_adapter
from core.train.decide import Choices, choose
from core.train.evaluation import Evaluator
from core.train.memory_limit import enforce
from core.train.memory_sampler import MemorySampler
from core.train.oom_retry import OomFallback
from core.train.parallel import ALONE, Ranks
from core.train.resume import ResumePoint, find_resume_point, read_resume_point
from core.train.rows import Rows, prepare_rows
from core.train.saving import DiskIsFull
from core.train.sharding import shard
from core.train.streaming import end_stream, stream_as_chosen
from core.train.trainer import NibbleTrainer
from core.train.trl_config import trainer_config
from core.train.watcher import LossIsLost, StoppedBeforeLearning, Watcher
from core.untrusted.template_marks import plain_template
from core.workspace import Workspace, write_json

ALL_LOGITS = (
    "This model's head is of a kind of its own: its loss is computed from the logits of all tokens, which takes more "
    "memory."
)
NONE_FUSED = "train.fused_lora is on, but no layer of this model can be computed in one pass; each takes PEFT's two."
NO_PAGING = "There is no GPU memory to page out, so the optimizer is not paged."


@dataclass(frozen=True)
class PreparedRun:
    """Everything that a run needs before its first step."""

    recipe: Recipe
    device: Device
    model: PeftModel
    tokenizer: Any
    rows: Rows
    choices: Choices
    steps: int
    dtype: torch.dtype
    start: ResumePoint | None = None


def train(run: Run, ranks: Ranks = ALONE, heartbeat: HeartbeatWriter | None = None) -> str:
    """Train `run` to its end, as rank 0 where there are several. Returns the state it ended in: 'finished', 'stopped'.

    `heartbeat` records what the run is doing. Raises NibbleError for what a person can fix; what was learned is saved.
    """
    recipe, chosen = run.recipe(), device()
    start = find_resume_point(run)
    folder = start.folder if start else None
    with MemorySampler(run, chosen, os.getpid()) as sampler, ExitStack() as at_end:
        found = have_base(run, recipe)
        ranks.meet()
        ranks.from_first(folder)
        budget = read_budget(recipe, found, chosen, ranks.count)
        for sentence in advice(recipe, found, chosen.kind) if start is None else []:
            run.event("warning", sentence)
        watcher: Watcher | None = None
        try:
            prepared = prepare(run, recipe, found, chosen, budget, ranks, folder)
            at_end.callback(end_stream, prepared.model)
            watcher = make_watcher(run, prepared, sampler, heartbeat or HeartbeatWriter(run))
            watcher.trainer = make_trainer(run, prepared, watcher, ranks)
            if start is not None and start.step >= prepared.steps:  # only its adapter was not saved yet
                restore_adapter(start.folder, prepared.model)
            else:
                (run.dir / "result.json").unlink(missing_ok=True)  # of an earlier end
                with hashing_base(run, found):
                    watcher.trainer.train()
        except StoppedBeforeLearning:
            return "stopped"
        except DiskIsFull as full:
            ending.disk_is_full(run, watcher, full)
        except LossIsLost as lost:
            ending.loss_is_lost(run, sampler, budget, lost)
        except UnreadableBlock as error:
            assert watcher is not None  # nothing is streamed before
            ending.layer_is_unreadable(run, watcher, sampler, budget, error)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            ending.out_of_memory(run, watcher, sampler, budget, error)
        ending.save_adapter_of(run, prepared.model, prepared.tokenizer)
    run.event("adapter", "The adapter is saved.")
    fresh = recipe.lora.init == "default" and recipe.lora.start_from is None
    if fresh and watcher.tally.step and not ranks.sharded:
        ending.warn_of_unlearned(run, prepared.model)
    ending.write_result(run, watcher, sampler, budget)
    return "stopped" if watcher.tally.stopped else "finished"


def hashing_base(run: Run, found: FoundModel) -> AbstractContextManager[None]:
    """A context in which a base in a folder is hashed in the background; one from the Hub is known by its commit."""
    if found.folder is None or found.revision is not None:
        return nullcontext()
    return hashing_meanwhile(run.dir / FILE, found.folder, Workspace(run.workspace).state / "base-hashes.json")


def prepare(
    run: Run, recipe: Recipe, found: FoundModel, chosen: Device, budget: Budget, ranks: Ranks, resumed: Path | None
) -> PreparedRun:
    """Load the model, render the data, and decide what is open: `resumed`, a checkpoint, keeps its decisions."""
    set_seed(recipe.train.seed)
    bits = recipe.quantization.bits
    dtype, because = dtype_for(chosen, found.model_type)
    run.event("device", f"{chosen.name}. Computing in {str(dtype).removeprefix('torch.')}: {because}.")
    note = refuse_misfit(found).note
    if note:
        run.event("model", note)
    tokenizer = load_tokenizer(found)
    run.event("template", f"Conversations are rendered with {require_template(tokenizer, recipe.data).source}.")
    rows = prepare_rows(run, recipe, tokenizer, embedding_rows(found))
    run.write_status(message=f"Loading {found.label} in {bits} bits.")
    stop_if_asked(run)
    in_force = enforce(budget.bytes, chosen, 0)  # an optimizer has no states yet
    run.event("budget", f"Memory budget {budget.read_as}, {in_force}.")
    stores = Stores(Workspace(run.workspace).quantised, partial(run.event, "model"))
    base = load_base(found, recipe.quantization, chosen, recipe.train.attention, ranks.sharded, stores)
    stop_if_asked(run)
    held = quantised(base)
    left_out = targets_note(base, recipe.lora)
    if left_out:
        run.event("adapter", left_out)
    pages = pages_states(chosen)
    adapters_in = adapter_dtype(dtype, optimizer_for(recipe.train.optimizer, pages), chosen.kind)
    continues = recipe.lora.start_from is not None and resumed is None  # a checkpoint holds all of the adapter
    model = attach_lora(base, recipe.lora, adapters_in, run.start if continues else None)
    if continues:
        report_start(run, recipe, tokenizer)
    report_model(run, found, bits, held, parameters_trained(model, recipe.lora))
    if ranks.sharded:
        shard(model, ranks, torch_device(chosen))
    packing = settle_packing(model, recipe.train, chosen.kind, dtype)
    if packing.note:
        run.event("attention", packing.note)
    rules, start = recipe.train, read_resume_point(resumed)
    steps = rules.max_steps or steps_for(len(rows.train), rules.effective_batch, rules.epochs or 1)
    choices = start.choices() if start else decide(run, recipe, found, rows, budget, packing)
    states = OptimizerStates(optimizer_for(choices.strategy.optimizer, pages), chosen.kind, model)
    enforce(budget.bytes, chosen, states.managed_bytes)  # which are known only now
    return PreparedRun(recipe, chosen, model, tokenizer, rows, choices, steps, dtype, start)


def decide(run: Run, recipe: Recipe, found: FoundModel, rows: Rows, budget: Budget, packing: Packing) -> Choices:
    """Plan the run's memory: plan.json, and the reasons in its events."""
    run.write_status(message="Planning the memory.")
    here = Workspace(run.workspace)
    choices = choose(recipe, found, rows.train, budget, packing.packed, packing.varlen, here)
    plan = {"budget_bytes": budget.bytes, "floor_bytes": budget.floor_bytes, **choices.as_json(recipe)}
    write_json(run.dir / "plan.json", plan)
    for reason in choices.reasons:
        run.event("plan", f"{reason['setting']}: {reason['value']}, because {reason['because']}.")
    return choices


def report_model(run: Run, found: FoundModel, bits: int, held: tuple[int, int], trained: int) -> None:
    """Report the model's size, and how much of it is quantised: `held` comes from `core.model.load.quantised`."""
    few, layers = held
    quantised_part = f", {few:,} of them in {bits} bits" if bits < 16 else f" in {bits} bits"
    sizes = f"{found.parameters:,} parameters{quantised_part}; {trained:,} in the adapter are trained"
    run.event("model", f"{found.label}: {sizes}.")
    if bits < 16 and few < layers / 2:
        run.event(
            "warning",
            f"Only {few / layers:.0%} of the weights in {found.label}'s layers could be quantised; the rest must "
            f"stay as it is. The model takes far more memory than {bits} bits per parameter.",
        )


def report_start(run: Run, recipe: Recipe, tokenizer: Any) -> None:
    """Report the adapter that is trained further, and warn if it was trained with another chat template."""
    lora = recipe.lora
    run.event("adapter", f"{lora.start_from} is trained further as it is: rank {lora.rank}, alpha {lora.alpha:g}.")
    template = run.start / TEMPLATE_FILE
    if template.is_file() and template.read_text(encoding="utf-8") != plain_template(str(tokenizer.chat_template)):
        run.event(
            "warning",
            "The adapter was trained with a different chat template. If that is not intended, choose its template "
            "(data.template).",
        )


def stop_if_asked(run: Run) -> None:
    """Raise StoppedBeforeLearning where a stop was asked for, between the long stages before the first step."""
    if run.is_to_stop():
        raise StoppedBeforeLearning


def make_watcher(run: Run, prepared: PreparedRun, sampler: MemorySampler, heartbeat: HeartbeatWriter) -> Watcher:
    """The callback that acts between steps."""
    recipe, rows, choices = prepared.recipe, prepared.rows, prepared.choices
    evaluator = Evaluator(run, recipe, rows, choices.packed, choices.tokens_at_once)
    settled = {"way": asdict(choices.strategy), "packed": choices.packed, "tokens_at_once": choices.tokens_at_once}
    return Watcher(run, recipe, rows, prepared.steps, sampler, evaluator, settled, prepared.start, heartbeat)


def make_trainer(run: Run, prepared: PreparedRun, watcher: Any, ranks: Ranks) -> NibbleTrainer:
    """trl's trainer over the run's micro-batches, or this process' share of them."""
    # One strategy for all: with different optimizers their adapters would diverge.
    choices = replace(prepared.choices, strategy=ranks.from_first(prepared.choices.strategy))
    model, start = prepared.model, prepared.start
    recipe = choices.settle(prepared.recipe, model)
    stream_as_chosen(run, model, choices.strategy, prepared.device)
    # Steps are dealt out for the plan's micro-batches, also when these have become smaller since.
    now = start.strategy if start else choices.strategy
    order = data_order(len(prepared.rows.train), prepared.steps, recipe.train.effective_batch, recipe.train.seed)
    batches = MicroBatches(prepared.rows.train, order, choices.strategy.micro_batch, choices.packed)
    kind, batch = prepared.device.kind, recipe.train.effective_batch
    pages = pages_states(prepared.device)
    config = trainer_config(recipe, run.dir, kind, prepared.dtype, prepared.steps, now, pages)
    if kind != "cuda" and OPTIMIZERS[recipe.train.optimizer].paged:
        run.event("optimizer", NO_PAGING)
    # A pass that all processes do together cannot be repeated by one of them.
    has_ram = choices.has_ram_for if not prepared.device.unified else lambda strategy: not strategy.offload
    fallback = None if ranks.sharded else OomFallback(now, batch, watcher.report_change, kind, has_ram)
    if now.heap == "returned":
        return_memory()
    tokenizer, mode, objective = prepared.tokenizer, now.checkpointing, objective_of(recipe)
    fused = now.fused_lora
    trainer = NibbleTrainer(model, tokenizer, batches, config, watcher, mode, fallback, ranks, start, objective, fused)
    if trainer.head is None:
        run.event("model", ALL_LOGITS)
    if now.fused_lora and recipe.train.fused_lora == "on" and not trainer.fused_layers:
        run.event("warning", NONE_FUSED)
    return trainer
