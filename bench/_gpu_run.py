"""One training of a random-weight model on this machine's device, in its own process: its memory and its speed.

python -m bench._gpu_run JSON      (a Job; prints an Outcome, or why it cannot be, as JSON on its last line)
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from bench._gpu_frame import NotHere, TookTooLong
from core.recipe import make_recipe
from core.system.hardware import claim_card, device, device_used_bytes
from core.system.process import child_environment
from core.text.library_errors import telling_line_of
from core.workspace import ROOT

LONGEST_SECONDS = 540.0


@dataclass(frozen=True)
class Job:
    """A model's transformers config, a recipe's settings, and the conversations' lengths in tokens.

    `budget_bytes` is the run's memory budget; None gives it all that is free. `limit_bytes` is what it then gets, where
    that is something else. `engine` is 'nibble', 'trl' (SFTTrainer
    with its defaults) or 'tuned' (SFTTrainer as somebody sets it who knows it). `changes` replaces what the plan
    chose, `dtype` what the card would compute in, and `environment` is added to that of the process.
    """

    config: dict[str, Any]
    settings: dict[str, Any]
    lengths: list[int]
    budget_bytes: int | None = None
    limit_bytes: int | None = None
    engine: str = "nibble"
    changes: dict[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Learned:
    """What an engine did: its settings, the bytes predicted, real tokens per second, and each step's loss and gradient.

    `grad_norms` may hold what is not a number, where fp16 overflowed. `shortages` counts how often a step ran out of
    memory and was begun again.
    """

    chosen: dict[str, Any]
    predicted: dict[str, int]
    tokens_per_second: float
    losses: list[float]
    grad_norms: list[float] = field(default_factory=list)
    shortages: int = 0


@dataclass(frozen=True)
class Outcome:
    """Peak bytes, predicted and read; real tokens per second after the first step; each step's loss and gradient.

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
    grad_norms: list[float] = field(default_factory=list)
    shortages: int = 0


def run_job(job: Job, limit_seconds: float = math.inf) -> Outcome:
    """Run `job` in its own process.

    Raises NotHere where it does not fit, TookTooLong, or RuntimeError with what the process says of its error.
    """
    command = [sys.executable, "-m", "bench._gpu_run", json.dumps(asdict(job))]
    environment = {**child_environment(), **job.environment}
    limit = max(1.0, min(limit_seconds, LONGEST_SECONDS))
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=limit
        )
    except subprocess.TimeoutExpired:
        raise TookTooLong from None
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError(telling_line_of(done.stderr, f"no output, exit status {done.returncode}"))
    answer = json.loads(lines[-1])
    if "not_here" in answer:
        raise NotHere(answer["not_here"])
    return Outcome(**answer)


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

    def forget(self) -> None:
        """Start again from what is used now, with torch's own peaks; torch's unused blocks go back to the card."""
        import torch

        if self.card.kind == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self.bytes = 0

    def _loop(self) -> None:
        while not self._end.wait(0.05):
            self._read()

    def _read(self) -> None:
        """A container hides which process holds what, so the rise of the whole card counts; nobody else uses it."""
        self.bytes = max(self.bytes, device_used_bytes(self.card, 0).device - self.before if self.before else 0)


class Timer:
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
            def warn(self, sentence: str) -> None:
                """What the trainer wants a person to know."""
                print(sentence, file=sys.stderr)

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


def rows_of_lengths(lengths: list[int]) -> list[Any]:
    """A conversation of each length, all but its first token trained."""
    from core.data.rendering.render import Rendered

    return [
        Rendered(row, [5 + (row * 7 + at) % 500 for at in range(length)], [at > 0 for at in range(length)], length)
        for row, length in enumerate(lengths)
    ]


def main(job: Job) -> Outcome:
    """Run the job in this process. Raises NotHere where it does not fit."""
    with Highest() as highest:
        import torch
        from transformers import set_seed

        from bench._gpu_engines import ENGINES
        from bench._random_model import load_random
        from core.model.load import dtype_for

        card = device()
        recipe = make_recipe({"train.max_steps": len(job.lengths) // 16, **job.settings})
        set_seed(recipe.train.seed)
        dtype = getattr(torch, job.dtype) if job.dtype else dtype_for(card, job.config["model_type"])[0]
        base = load_random(job.config, recipe.quantization, card, dtype)
        parameters = sum(each.numel() for each in _sketched(job.config).parameters())
        learned = ENGINES[job.engine](job, recipe, base, dtype, parameters, highest)
    cuda = card.kind == "cuda"
    return Outcome(
        tensors=torch.cuda.max_memory_allocated() if cuda else 0,
        reserved=torch.cuda.max_memory_reserved() if cuda else 0,
        process=highest.bytes,
        parameters=parameters,
        **asdict(learned),
    )


def _sketched(config: dict[str, Any]) -> Any:
    import torch

    from core.memory.meta_model import meta_base

    return meta_base(config, make_recipe({"quantization.bits": 16}).quantization, torch.float32)


def _answer(job: Job) -> dict[str, Any]:
    try:
        return asdict(main(job))
    except NotHere as reason:
        return {"not_here": str(reason)}


if __name__ == "__main__":
    claim_card()
    print(json.dumps(_answer(Job(**json.loads(sys.argv[1])))))
