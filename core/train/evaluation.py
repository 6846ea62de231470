"""Evaluations in a run: the loss on held-out rows, and the model's replies to the sample prompts."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

from core.data.batches import evaluation_batches
from core.errors import BudgetError
from core.generation.generate import answers
from core.model.load import is_out_of_memory
from core.recipe import Recipe
from core.runs.store import Run
from core.system.full_disk import free_some, is_disk_full
from core.train.best_adapter import Best, keep_best, perplexity
from core.train.memory_limit import lifted, renewed
from core.train.oom_retry import CLOSE_OTHERS, Shortage, attempt, twice
from core.train.rows import Rows

# Tokens at once when the evaluation loss is measured; fewer where a micro-batch of the training has fewer.
TOKENS_AT_ONCE = 2048
# With fewer there is one conversation at once anyway.
FEWEST_TOKENS = 16
NO_LOSS = "Not enough memory for the evaluation loss: evaluations are skipped from now on. Training continues."
NO_ANSWERS = "Not enough memory for sample replies: they are skipped from now on. Training continues."
BEST_NOT_SAVED = "the best adapter so far could not be saved. Training continues."
TOGETHER = (
    "Memory ran out during the evaluation. Raise the budget, or lower data.max_length or evaluation.max_new_tokens."
)
T = TypeVar("T")


class Evaluator:
    """Measures, prompts, and keeps the best adapter. Running out of memory makes it use less; it never ends the run."""

    def __init__(self, run: Run, recipe: Recipe, rows: Rows, packed: bool, training_tokens: int) -> None:
        self.run, self.recipe, self.rows, self.packed = run, recipe, rows, packed
        self.best = Best()
        self.first_loss: float | None = None
        self.loss: float | None = None
        self._tokens = min(TOKENS_AT_ONCE, training_tokens)
        self._prompts_at_once = max(1, len(rows.prompts))

    def evaluate(self, trainer: Any, step: int, counts: bool = True) -> None:
        """Measure the loss and prompt the model after `step`. Step 0 is the base alone, which cannot be the best.

        `counts` is false for the evaluation of a run that is stopped: it was not scheduled, and leaves patience alone.
        """
        trainer.ranks.call_along()
        since = self.best.since
        if self.rows.held_out and self._tokens:
            self._measure(trainer, step)
        if not counts:
            self.best.since = min(self.best.since, since)
        if self.rows.prompts and self._prompts_at_once:
            self._sample(trainer, step)

    def as_dict(self) -> dict[str, Any]:
        """As a checkpoint holds it; `restore` reads it back."""
        return {
            "best": asdict(self.best),
            "first_loss": self.first_loss,
            "loss": self.loss,
            "tokens": self._tokens,
            "prompts_at_once": self._prompts_at_once,
        }

    def restore(self, held: dict[str, Any]) -> None:
        """Continue from what a checkpoint holds."""
        self.best, self.first_loss, self.loss = Best(**held["best"]), held["first_loss"], held["loss"]
        self._tokens, self._prompts_at_once = held["tokens"], held["prompts_at_once"]

    def out_of_patience(self) -> bool:
        """Whether as many evaluations in a row as the recipe allows brought nothing better."""
        patience = self.recipe.evaluation.patience
        return patience is not None and self.best.since >= patience

    def _measure(self, trainer: Any, step: int) -> None:
        loss = self._held_out_loss(trainer)
        if loss is None:
            self.run.event("warning", NO_LOSS)
            return
        self.loss = loss if math.isfinite(loss) else None
        line = {"step": step, "time": time.time(), "eval_loss": self.loss, "eval_perplexity": perplexity(loss)}
        self.run.append("metrics.jsonl", line)
        if step == 0:
            self.first_loss = self.loss
        elif self.best.take(step, loss):
            self._keep_best(trainer, step)

    def _keep_best(self, trainer: Any, step: int) -> None:
        try:
            with lifted():
                twice(partial(keep_best, self.run.dir, step, trainer.model, trainer.processing_class))
        except Exception as error:
            if is_out_of_memory(error):
                self.run.event("warning", f"Memory ran out: {BEST_NOT_SAVED} {CLOSE_OTHERS}")
            elif is_disk_full(error):
                self.run.event("warning", f"The disk is full: {BEST_NOT_SAVED} {free_some(self.run.workspace)}")
            else:
                raise

    def _held_out_loss(self, trainer: Any) -> float | None:
        """In nats a token; None where even one conversation at once is too much."""
        while self._tokens:
            batches = evaluation_batches(self.rows.held_out, self._tokens, self.packed)
            loss = _attempt(trainer, partial(trainer.held_out_loss, batches))
            if not isinstance(loss, Shortage):
                return loss
            if not renewed():
                self._tokens = self._tokens // 2 if self._tokens >= FEWEST_TOKENS else 0
        return None

    def _sample(self, trainer: Any, step: int) -> None:
        replies = self._replies(trainer)
        if replies is None:
            self.run.event("warning", NO_ANSWERS)
            return
        for prompt, answer in zip(self.rows.prompts, replies, strict=True):
            self.run.append("samples.jsonl", {"step": step, "prompt": prompt, "answer": answer})

    def _replies(self, trainer: Any) -> list[str] | None:
        """In the order of the prompts; None where even one at once is too much."""
        while self._prompts_at_once:
            replies = _attempt(trainer, partial(self._generate, trainer))
            if not isinstance(replies, Shortage):
                return replies
            if not renewed():
                self._prompts_at_once //= 2
        return None

    def _generate(self, trainer: Any) -> list[str]:
        model, prompts, size = trainer.model, self.rows.prompts, self._prompts_at_once
        most = self.recipe.evaluation.max_new_tokens
        model.eval()
        replies: list[str] = []
        for start in range(0, len(prompts), size):
            replies += answers(model, trainer.processing_class, prompts[start : start + size], most)
        model.train()
        return replies


def _attempt(trainer: Any, work: Callable[[], T]) -> T | Shortage:
    """As `attempt`; but a sharded process cannot try again alone, so there it raises BudgetError."""
    done = attempt(work)
    if isinstance(done, Shortage) and trainer.ranks.sharded:
        raise BudgetError(TOGETHER)
    return done
