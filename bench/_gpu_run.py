"""One training of a random-weight model on this machine's device, in its own process: its memory and its speed.

python -m bench._gpu_run JSON      (a Job; prints an Outcome as JSON on its last line)
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from core.recipe import make_recipe
from core.system.hardware import claim_card, device, device_used_bytes
from core.system.process import child_environment
from core.workspace import ROOT


@dataclass(frozen=True)
class Job:
    """A model's transformers config, a recipe's settings, and the conversations' lengths in tokens.

    `budget_bytes` is the run's memory budget; None gives it all that is free. `reference` trains with trl's SFTTrainer
    and its defaults instead of our trainer.
    """

    config: dict[str, Any]
    settings: dict[str, Any]
    lengths: list[int]
    budget_bytes: int | None = None
    reference: bool = False


@dataclass(frozen=True)
class Outcome:
    """Peak bytes, predicted and read; real tokens per second after the first step; and the loss of each step.

    `tensors` and `reserved` are torch's figures, `process` is NVML's: everything that this process takes of the card.
    """

    predicted: dict[str, int]
    tensors: int
    reserved: int
    process: int
    chosen: dict[str, Any]
    tokens_per_second: float
    losses: list[float]
    parameters: int


def run_job(job: Job, limit_seconds: float = 540) -> Outcome:
    """Run `job` in its own process. Raises RuntimeError with the process' last line if it fails."""
    command = [sys.executable, "-m", "bench._gpu_run", json.dumps(asdict(job))]
    done = subprocess.run(
        command, cwd=ROOT, env=child_environment(), capture_output=True, encoding="utf-8", timeout=limit_seconds
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1][:300])
    return Outcome(**json.loads(lines[-1]))


class Highest:
    """Reads twenty times a second how much of the device this process takes, and keeps the maximum."""

    def __init__(self) -> None:
        self.card = device()
        self.before = device_used_bytes(self.card, 0).device if self.card.kind == "cuda" else 0
        self.bytes = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Highest:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._end.set()
        self._thread.join()
        self._read()

    def _loop(self) -> None:
        while not self._end.wait(0.05):
            self._read()

    def _read(self) -> None:
        """A container hides which process holds what, so the rise of the whole card counts; nobody else uses it."""
        self.bytes = max(self.bytes, device_used_bytes(self.card, 0).device - self.before if self.before else 0)


def main(job: Job) -> Outcome:
    """Run the job in this process."""
    with Highest() as highest:
        import torch

        from bench._random_model import load_random
        from core.model.load import attach_lora, dtype_for
        from core.step.adapter_dtype import adapter_dtype
        from core.step.optimizer import optimizer_for

        card = device()
        recipe = make_recipe({"train.max_steps": len(job.lengths) // 16, **job.settings})
        dtype, _ = dtype_for(card)
        base = load_random(job.config, recipe.quantization, card)
        parameters = sum(each.numel() for each in _sketched(job.config).parameters())
        adapters = adapter_dtype(dtype, optimizer_for(recipe.train.optimizer), card.kind)
        model = base if job.reference else attach_lora(base, recipe.lora, adapters)
        learn = _theirs if job.reference else _ours
        chosen, predicted, speed, losses = learn(job, recipe, model, parameters)
    cuda = card.kind == "cuda"
    return Outcome(
        predicted,
        torch.cuda.max_memory_allocated() if cuda else 0,
        torch.cuda.max_memory_reserved() if cuda else 0,
        highest.bytes,
        chosen,
        speed,
        losses,
        parameters,
    )


def _sketched(config: dict[str, Any]) -> Any:
    import torch

    from core.memory.meta_model import meta_base

    return meta_base(config, make_recipe({"quantization.bits": 16}).quantization, torch.float32)


def _ours(job: Job, recipe: Any, model: Any, parameters: int) -> tuple[dict[str, Any], dict[str, int], float, Any]:
    """Nibble's engine as `train` runs it, with the plan that it would have made, but without a run's files."""
    import tempfile
    from pathlib import Path

    from core.basemodel.find import find_model
    from core.data.batches import MicroBatches, data_order
    from core.memory.plan import plan
    from core.memory.workload import ConversationLength
    from core.model.load import dtype_for, load_tokenizer
    from core.step.packing import packing_is_exact
    from core.train.decide import Choices
    from core.train.memory_limit import enforce
    from core.train.trainer import NibbleTrainer
    from core.train.trl_config import trainer_config

    card = device()
    packed = packing_is_exact(model)
    planned = plan(_problem(job, recipe, parameters, packed))
    if planned.strategy is None:
        raise RuntimeError(f"does not fit: {planned.reasons[0]['because']}")
    conversations = [ConversationLength(length, length - 1) for length in job.lengths]
    if job.budget_bytes is not None:
        enforce(job.budget_bytes, card, planned.peak.traced.managed)
    choices = Choices(planned.strategy, packed, planned, planned.reasons, max(each.length for each in conversations))
    settled = choices.settle(recipe, model)
    steps = recipe.train.max_steps or 1
    dtype, _ = dtype_for(card)
    way, rows, timer = planned.strategy, _rows(job.lengths), _Timer()
    order = data_order(len(rows), steps, recipe.train.effective_batch, recipe.train.seed)
    with tempfile.TemporaryDirectory() as folder:
        config = trainer_config(settled, Path(folder), card.kind, dtype, steps, way)
        batches = MicroBatches(rows, order, way.micro_batch, packed)
        tokenizer = load_tokenizer(find_model("starter"))
        callback, fused = timer.callback(), way.fused_lora
        trainer = NibbleTrainer(model, tokenizer, batches, config, callback, way.checkpointing, fused=fused)
        timer.tokens = lambda: trainer.real_tokens
        trainer.train()
        losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    chosen = way.as_json(recipe.train.effective_batch)
    return chosen, planned.peak.as_json(), timer.tokens_per_second(), losses


def _problem(job: Job, recipe: Any, parameters: int, packed: bool) -> Any:
    """The planning problem: this job on this machine's device within its budget."""
    from dataclasses import replace

    from core.memory.budget import Budget
    from core.memory.estimate import Architecture, planning_problem, target_for
    from core.memory.workload import ConversationLength

    conversations = [ConversationLength(length, length - 1) for length in job.lengths]
    problem = planning_problem(
        recipe, target_for(None), Architecture("random", job.config, parameters, True), conversations, packed
    )
    return problem if job.budget_bytes is None else replace(problem, budget=Budget(job.budget_bytes, "the job's", 0))


def _rows(lengths: list[int]) -> list[Any]:
    from core.data.rendering.render import Rendered

    return [
        Rendered(row, [5 + (row * 7 + at) % 500 for at in range(length)], [at > 0 for at in range(length)], length)
        for row, length in enumerate(lengths)
    ]


class _Timer:
    """Times the steps after the first, which is a warm-up."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.from_tokens = self.to_tokens = 0
        self.tokens: Any = lambda: 0

    def callback(self) -> Any:
        """The callback to give to the trainer."""
        from transformers import TrainerCallback

        timer = self

        class Steps(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
                _wait_for_device()
                timer.ended, timer.to_tokens = time.perf_counter(), timer.tokens()
                if state.global_step == 1:
                    timer.began, timer.from_tokens = timer.ended, timer.to_tokens

        return Steps()

    def tokens_per_second(self) -> float:
        """Real tokens per second, padding not counted; 0 if there was only one step."""
        seconds = self.ended - self.began
        return (self.to_tokens - self.from_tokens) / seconds if seconds > 0 else 0.0


def _wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _theirs(job: Job, recipe: Any, model: Any, parameters: int) -> tuple[dict[str, Any], dict[str, int], float, Any]:
    """trl's SFTTrainer with its defaults and the same effective batch; the micro-batch is the recipe's, if given."""
    import tempfile

    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from core.basemodel.find import find_model
    from core.model.load import load_tokenizer

    timer, counted = _Timer(), {"tokens": 0}
    timer.tokens = lambda: counted["tokens"]
    size = recipe.train.micro_batch or min(SFTConfig.per_device_train_batch_size, recipe.train.effective_batch)
    rows = [{"input_ids": each.ids, "labels": each.ids} for each in _rows(job.lengths)]

    class Counting(SFTTrainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            counted["tokens"] += int(inputs["attention_mask"].sum())
            return super().training_step(model, inputs, *rest, **named)

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
        )
        lora = LoraConfig(
            r=recipe.lora.rank, lora_alpha=recipe.lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        trainer = Counting(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(find_model("starter")),
            peft_config=lora,
            callbacks=[timer.callback()],
        )
        trainer.train()
        losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    return {"micro_batch": size}, {}, timer.tokens_per_second(), losses


if __name__ == "__main__":
    claim_card()
    print(json.dumps(asdict(main(Job(**json.loads(sys.argv[1]))))))
