"""trl's SFTTrainer with our own micro-batches in our own order, and a loss measured on every held-out token."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from datasets import Dataset as ArrowDataset
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from core.data.batches import Batch, MicroBatches, counted, parts_of
from core.step.adapter_dtype import compute_in_input_dtype
from core.step.checkpointing import checkpoint, thin_out
from core.step.fused_lora import fuse
from core.step.head import exact_head
from core.step.neftune import add_noise
from core.step.objective import SUPERVISED, Objective
from core.system.allocator import return_memory
from core.train.activation_offload import forget_pass, offload_activations, unpin_on_failure
from core.train.checkpoints import random_states, restore_random_states
from core.train.memory_limit import renewed
from core.train.oom_retry import OomFallback, Shortage, attempt
from core.train.parallel import ALONE, KeepInStep, Ranks
from core.train.resume import RestoreState, ResumePoint


class _CheckpointSomeLayers(TrainerCallback):
    """transformers checkpoints every layer; this leaves it to those that the plan wants."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Called when transformers has turned checkpointing on, before the first step."""
        if args.gradient_checkpointing:
            thin_out(model, self.mode)


@dataclass(frozen=True)
class Outcome:
    """The result of one optimizer step's forward and backward passes.

    `loss` in nats a trained token; `suspects` are the rows, by their number in the file, among which a loss that is
    not a number came up, or all of the step's where it is only the gradient. `overflowed`: the gradient did not fit
    fp16 as it was scaled, and the scaler skips the step.
    """

    loss: float
    suspects: list[int] = field(default_factory=list)
    grad_norm: float = 0.0
    lost: bool = False
    overflowed: bool = False


@dataclass(frozen=True)
class _Share:
    """What this process has done of a step: its micro-batches, the loss of each, and their tokens without padding."""

    parts: list[Sequence[int]]
    losses: list[torch.Tensor]
    tokens: int


class NibbleTrainer(SFTTrainer):
    """SFTTrainer with its optimizer and schedule; the loss, batches, order and evaluation are ours.

    To transformers an optimizer step is one batch; `training_step` splits it into micro-batches itself, so that a step
    that runs out of memory can be begun again in smaller ones (where there is a `fallback`). The gradient of a step is
    the mean over its trained tokens, however it is split. A step whose loss or gradient is not a number changes
    nothing but the schedule. `fused`: layers compute base and adapter in one pass where they can. Covered: one process,
    or several that each hold the whole model (`ranks`).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        batches: MicroBatches,
        config: SFTConfig,
        watcher: Any,
        checkpointing: str = "full",
        fallback: OomFallback | None = None,
        ranks: Ranks = ALONE,
        start: ResumePoint | None = None,
        objective: Objective = SUPERVISED,
        fused: bool = True,
    ) -> None:
        self.objective = objective
        self.batches, self.fallback, self.ranks = batches, fallback, ranks
        self._warn: Callable[[str], object] = lambda sentence: watcher.warn(sentence)
        self.steps_done = start.step if start else 0
        self.real_tokens = 0
        self.outcome = Outcome(math.nan)
        config.gradient_accumulation_steps = 1
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        values = [parameter.data for parameter in trained]
        # SFTTrainer wants a dataset to look at; the rows that it trains on come from get_train_dataloader.
        shape_only = ArrowDataset.from_dict({"input_ids": [[0, 0]], "labels": [[-100, 0]]})
        restorers = [RestoreState(start)] if start else []
        super().__init__(
            model=model,
            args=config,
            train_dataset=shape_only,
            processing_class=tokenizer,
            callbacks=[_CheckpointSomeLayers(checkpointing), *restorers, watcher, KeepInStep(ranks, watcher)],
        )
        self.remove_callback(PrinterCallback)  # a line a step in the log too, and a full disk would end the run there
        if config.activation_offloading:
            unpin_on_failure(self.maybe_activation_offload_context, self._warn)
        for each in restorers:
            each.trainer = self
        for parameter, value in zip(trained, values, strict=True):
            parameter.data = value  # SFTTrainer has rounded them to bf16: what a run starts from would be another
        if config.activation_offloading:  # it knows parameters by where they lie, to leave them there
            self.maybe_activation_offload_context.update_model_params(self.model)
        self.fused_layers = fuse(self.model, self.args.device.type).layers if fused else 0
        compute_in_input_dtype(self.model)
        causal = self.model.get_base_model()
        self.head = exact_head(causal)
        if config.neftune_noise_alpha is not None:
            add_noise(causal, config.neftune_noise_alpha)
            self.neftune_noise_alpha = None  # transformers' own would size it by the batch

    def get_train_dataloader(self) -> DataLoader[dict[str, list[int]]]:
        """The rows of each optimizer step that is still to be done, in their order."""
        steps: Any = [{"rows": rows} for rows in self.batches.order[self.steps_done :]]
        return DataLoader(steps, batch_size=None, shuffle=False)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The forward and backward passes of one optimizer step. Returns its loss, in nats a trained token.

        Where several processes train, each does its share, and all get the same sums. A share that runs out of memory
        is begun again with a more frugal strategy: no gradient of the failed passes is left, and dropout draws the
        same numbers. Raises OutOfRoom where no such strategy is left.
        """
        rows, ranks = inputs["rows"], self.ranks
        share = ranks.share(rows, lambda row: len(self.batches.conversations[row].ids))
        trained = ranks.sum(counted(self.batches.made_of(share)).to(self.args.device))
        done = self._share(model, share, trained)
        ranks.sum_gradients(self.model.parameters())
        self.real_tokens += int(ranks.sum(torch.tensor(done.tokens, device=self.args.device)))
        loss = ranks.sum(torch.stack(done.losses).float().sum())
        self.outcome = self._outcome(rows, done, float(loss))
        # A sum of transformers' own must not become NaN for good.
        return loss if math.isfinite(self.outcome.loss) else torch.zeros_like(loss)

    def _share(self, model: Any, rows: Sequence[int], trained: torch.Tensor) -> _Share:
        if self.fallback is None:
            return self._accumulate(model, rows, trained)
        before = random_states()
        while isinstance(done := attempt(partial(self._accumulate, model, rows, trained)), Shortage):
            self.model.zero_grad(set_to_none=True)
            restore_random_states(before)
            if not renewed():
                self._step_down(self.fallback, done)
        return done

    def _step_down(self, fallback: OomFallback, shortage: Shortage) -> None:
        before, now = fallback.strategy, fallback.step_down(shortage)
        if before.checkpointing == "off" and now.checkpointing != "off":
            checkpoint(self.model, now.checkpointing)
        elif before.checkpointing != now.checkpointing:
            thin_out(self.model, now.checkpointing)
        if now.offload and not before.offload:
            self.maybe_activation_offload_context = offload_activations(self.model, self._warn)
        if now.heap != before.heap:
            return_memory()
            renewed()

    def _accumulate(self, model: Any, rows: Sequence[int], trained: torch.Tensor) -> _Share:
        """A forward and backward pass over each micro-batch of `rows`, in a step with `trained` tokens in all."""
        parts = parts_of(rows, self.fallback.strategy.micro_batch if self.fallback else self.batches.micro_batch)
        batches = [self.batches.made_of(part) for part in parts]
        tokens = sum(int(batch.pop("real_tokens")) for batch in batches)
        # What a mixture's own loss is divided by: it is a mean over all passes of the step.
        self.current_gradient_accumulation_steps = len(parts) * self.ranks.count
        losses = [self._pass(model, batch, trained) for batch in batches]
        return _Share(parts, losses, tokens)

    def _pass(self, model: Any, batch: Batch, trained: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(model, batch, trained)
        forget_pass(self.maybe_activation_offload_context)
        return loss

    def _outcome(self, rows: Sequence[int], done: _Share, loss: float) -> Outcome:
        lost = not math.isfinite(loss)
        mine = [part for part, each in zip(done.parts, done.losses, strict=True) if not math.isfinite(float(each))]
        named = self.ranks.together([row for part in mine for row in part]) if lost else []
        return Outcome(loss, sorted(self.batches.conversations[row].row for row in named or rows), lost=lost)

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip as transformers does; if loss or gradient is not a number, drop the gradient: there is no step to take.

        A gradient that only overflowed fp16 is the scaler's to handle: it lowers its scale, as it does at the start of
        every such run.
        """
        norm = super()._clip_grad_norm(model)
        scaler = self.accelerator.scaler
        odd, may_overflow = not math.isfinite(float(norm)), scaler is not None and scaler.get_scale() > 1
        lost = self.outcome.lost or (odd and not may_overflow)
        self.outcome = replace(self.outcome, grad_norm=float(norm), lost=lost, overflowed=odd and not lost)
        if lost:
            model.zero_grad(set_to_none=True)
        return norm

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean over the trained tokens of the whole step, in nats."""
        if return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        items = counted(inputs) if num_items_in_batch is None else num_items_in_batch
        return self.summed_loss(inputs) / torch.as_tensor(items).clamp(min=1e-6)

    def summed_loss(self, inputs: Batch) -> torch.Tensor:
        """The objective's loss of one micro-batch, summed, in nats."""
        causal = self.model.get_base_model()  # around PEFT's wrapper accelerate has put autocast, which no trace has
        return self.objective.loss(causal, inputs, self.head)

    def held_out_loss(self, batches: Iterable[Batch]) -> float:
        """Mean negative log-likelihood a trained token, in nats, over all of `batches`."""
        total, tokens = 0.0, 0.0
        self.model.eval()
        with torch.no_grad():
            for batch in batches:
                inputs = {key: value.to(self.args.device) for key, value in batch.items() if key != "real_tokens"}
                total += float(self.summed_loss(inputs))
                tokens += float(counted(inputs))
        self.model.train()
        return total / max(tokens, 1e-6)
