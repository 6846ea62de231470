"""How a run ends: its result and adapter, and what is saved when it cannot continue."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from accelerate.utils.memory import clear_device_cache

from core.errors import BudgetError, TrainingError
from core.memory.budget import Budget
from core.model.load import is_out_of_memory
from core.model.lora_init import ADAPTER, lora_layers
from core.model.stream.source import UnreadableBlock
from core.runs.manifest import flush_all, put_in_place, valid_checkpoints
from core.runs.store import Run
from core.sizes import show_size
from core.system.full_disk import free_some, is_disk_full
from core.train.adapter_files import write_adapter
from core.train.best_adapter import perplexity
from core.train.memory_limit import lifted
from core.train.memory_sampler import MemorySampler
from core.train.oom_retry import CLOSE_OTHERS, OutOfRoom, asked_bytes, twice
from core.train.saving import DiskIsFull
from core.train.watcher import LossIsLost, Watcher
from core.workspace import write_json

ADAPTER_NOT_SAVED = "the adapter could not be saved. The last checkpoint has the progress up to then."


def save_adapter(run: Run, write: Callable[[Path], object], tokenizer: Any) -> None:
    """Save the adapter that `write` makes, and its tokenizer: beside, then renamed. Raises DiskIsFull, BudgetError."""
    beside = run.dir / ".adapter.partial"

    def work() -> None:
        shutil.rmtree(beside, ignore_errors=True)
        with lifted():
            write(beside)
            tokenizer.save_pretrained(beside)
            flush_all(beside)

    try:
        twice(work)
        put_in_place(beside, run.adapter)
    except Exception as error:
        shutil.rmtree(beside, ignore_errors=True)
        if is_out_of_memory(error):
            raise BudgetError(f"Memory ran out: {ADAPTER_NOT_SAVED} {CLOSE_OTHERS} Then resume the run.") from None
        if not is_disk_full(error):
            raise
        full = f"The disk is full: {ADAPTER_NOT_SAVED} {free_some(run.workspace)} Then resume the run."
        raise DiskIsFull(full) from None


def save_adapter_of(run: Run, model: Any, tokenizer: Any) -> None:
    """Save the adapter as it is in `model` now. Raises DiskIsFull, BudgetError."""
    save_adapter(run, partial(write_adapter, model), tokenizer)


def disk_is_full(run: Run, watcher: Watcher | None, full: DiskIsFull) -> NoReturn:
    """There was no room for the last checkpoint: try the adapter alone. Raises DiskIsFull saying what was saved."""
    assert watcher is not None  # there is a watcher, or nothing would have been saved
    try:
        save_adapter_of(run, watcher.trainer.model, watcher.trainer.processing_class)
    except (DiskIsFull, BudgetError):
        raise full from None
    raise DiskIsFull(f"{full} The adapter itself is saved.")


def write_result(run: Run, watcher: Watcher, sampler: MemorySampler, budget: Budget) -> None:
    """Write result.json. Losses are in nats a token, sizes in bytes, seconds since the run was started."""
    tally, measured, used = watcher.tally, watcher.evaluator, sampler.peaks()
    predicted = run.plan().get("peak_bytes")
    _report_memory(run, predicted, used["process"])
    _warn_of_no_gain(watcher)
    write_json(
        run.dir / "result.json",
        {
            "steps": tally.step,
            "final_loss": tally.final_loss,
            "eval_loss_before": measured.first_loss,
            "eval_loss": measured.loss,
            "eval_perplexity_before": perplexity(measured.first_loss),
            "eval_perplexity": perplexity(measured.loss),
            "best": measured.best.summary(),
            "skipped_steps": watcher.health.lost,
            "ended_early": tally.ended_early,
            "seconds": round(watcher.seconds(), 2),
            "train_seconds": round(tally.train_seconds, 2),
            "tokens": tally.tokens,
            "tokens_per_second": round(tally.tokens / max(tally.train_seconds, 1e-9), 1),
            "peak_bytes": used,
            "predicted_peak_bytes": predicted,
            "budget_bytes": budget.bytes,
            "data": watcher.rows.counts,
        },
    )


def warn_of_unlearned(run: Run, model: Any) -> None:
    """Warn of fresh adapters whose B is still zero at the end: no row reached their layers."""
    layers = [layer for _, layer in lora_layers(model)]
    still = sum(not bool(layer.lora_B[ADAPTER].weight.any()) for layer in layers)
    if still:
        run.event(
            "warning",
            f"{still:,} of {len(layers):,} adapter layers learned nothing: no row of this run's data reached them. "
            f"Exclude them with lora.targets.",
        )


def _report_memory(run: Run, predicted: dict[str, int] | None, process: int | None) -> None:
    if predicted and process:
        off = process / predicted["process"] - 1
        sizes = f"predicted {show_size(predicted['process'])}, used {show_size(process)}"
        run.event("memory", f"Peak memory: {sizes} ({off:+.1%}).")


def _warn_of_no_gain(watcher: Watcher) -> None:
    before, best = watcher.evaluator.first_loss, watcher.evaluator.best.eval_loss
    if before is not None and best is not None and best > before:
        watcher.warn(
            f"No evaluation was better than before the first step: {before:.3f} before, {best:.3f} at best. "
            "Try a lower learning rate, or more or cleaner data."
        )


def out_of_memory(
    run: Run, watcher: Watcher | None, sampler: MemorySampler, budget: Budget, error: BaseException
) -> NoReturn:
    """Save what was learned up to the last whole step. Raises BudgetError naming a budget that may do."""
    saved = "Nothing had been learned yet."
    if watcher is not None and watcher.trainer is not None and watcher.tally.step:
        error.__traceback__ = None  # its frames hold the tensors of what failed
        watcher.trainer.model.zero_grad(set_to_none=True)
        clear_device_cache(garbage_collection=True)
        saved = _saved(run, watcher)
        write_result(run, watcher, sampler, budget)
    frugal = ", even with micro-batch 1 and full gradient checkpointing" if isinstance(error, OutOfRoom) else ""
    if isinstance(error, OutOfRoom) and error.shortage.in_ram:
        raise BudgetError(
            f"Ordinary memory ran out, where this run keeps what the GPU has no room for. {saved} Close other "
            "programs, or lower data.max_length or raise the budget, so that less has to be kept there."
        )
    needed = _smallest_budget(run, budget, error)
    raise BudgetError(
        f"Memory ran out within the budget of {show_size(budget.bytes)}{frugal}. {saved} "
        f"Raise the budget to {needed}, or lower data.max_length or lora.rank."
    )


def layer_is_unreadable(
    run: Run, watcher: Watcher, sampler: MemorySampler, budget: Budget, error: UnreadableBlock
) -> NoReturn:
    """Save what was learned up to the last whole step. Raises TrainingError: the run can go on from there."""
    saved = "Nothing had been learned yet."
    if watcher.tally.step:
        watcher.trainer.model.zero_grad(set_to_none=True)
        saved = _saved(run, watcher)
        write_result(run, watcher, sampler, budget)
    raise TrainingError(f"{error} {saved} Check the disk of {run.dir}, then resume the run.") from error


def _saved(run: Run, watcher: Watcher) -> str:
    """Save the last whole step, and the adapter as it is then. Returns what is saved."""
    step, of_itself = watcher.tally.step, " The adapter itself is saved."
    try:
        watcher.save(step, last=True)
        saved, of_itself = f"Progress up to step {step:,} is saved.", ""
    except DiskIsFull as full:
        saved = str(full)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        saved = f"It ran out again while step {step:,} was being saved. {watcher.saver.newest()}"
    try:
        save_adapter_of(run, watcher.trainer.model, watcher.trainer.processing_class)
    except (DiskIsFull, BudgetError) as error:
        of_itself = f" {error}"
    return saved + of_itself


def _smallest_budget(run: Run, budget: Budget, error: BaseException) -> str:
    """At least what the plan says, and at least the budget plus the request that failed."""
    asked = error.shortage.asked_bytes if isinstance(error, OutOfRoom) else asked_bytes(str(error))
    smallest = max(run.plan().get("smallest_budget_bytes") or 0, budget.bytes + (asked or 0))
    shown = show_size(smallest)
    return "more than that" if smallest <= budget.bytes or shown == show_size(budget.bytes) else f"{shown} or more"


def loss_is_lost(run: Run, sampler: MemorySampler, budget: Budget, lost: LossIsLost) -> NoReturn:
    """Keep the last good state as the adapter. Raises TrainingError with what to try."""
    watcher = lost.watcher
    try:
        kept = _keep_last_good(run, watcher)
    except (DiskIsFull, BudgetError) as error:
        kept = str(error)
    write_result(run, watcher, sampler, budget)
    rate = watcher.recipe.train.learning_rate
    fp16 = "This device computes in fp16, where large values overflow; a card with bf16 would help. "
    raise TrainingError(
        f"The loss was NaN or infinite in three steps in a row, up to step {watcher.tally.step:,}. {kept} "
        f"{fp16 if watcher.trainer.args.fp16 else ''}"
        f"Try a lower train.learning_rate (it is {rate:g}; try {rate / 3:.1g}), or check {lost.rows} of the data."
    )


def _keep_last_good(run: Run, watcher: Watcher) -> str:
    """The newest checkpoint as the adapter; the last sound step's weights where there is none. Says which."""
    trainer, sound = watcher.trainer, watcher.tally.last_sound_step
    run.write_status(step=watcher.tally.step)
    if not sound:
        return "Nothing had been learned yet."
    # The first checkpoint only shows that saving works.
    checkpoints = [each for each in valid_checkpoints(run.dir / "checkpoints") if int(each.name) > 1]
    if not checkpoints:
        watcher.save(watcher.tally.step)
        save_adapter_of(run, trainer.model, trainer.processing_class)
        return f"The adapter is kept as it was after step {sound:,}, the last good one."
    save_adapter(run, partial(shutil.copytree, checkpoints[0] / "adapter"), trainer.processing_class)
    return f"The adapter of the last checkpoint, step {checkpoints[0].name}, is kept."
