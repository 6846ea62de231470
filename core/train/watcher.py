"""What happens between a run's steps: its files are written, requests obeyed, the evaluation loss measured."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformers import TrainerCallback, TrainerControl

from core.memory.strategy import Strategy
from core.model.stream.stream import LayerStream, stream_of
from core.recipe import Recipe
from core.runs.heartbeat import HeartbeatWriter
from core.runs.store import Request, Run
from core.sizes import show_size
from core.train.evaluation import Evaluator
from core.train.health import MOST_IN_A_ROW, Health, LossJump
from core.train.memory_sampler import MemorySampler
from core.train.oom_retry import Shortage
from core.train.resume import ResumePoint
from core.train.rows import Rows
from core.train.saving import Saver
from core.train.streaming import Traffic
from core.workspace import write_json

HEARTBEAT_SECONDS = 1.0
ROWS_NAMED = 8


class StoppedBeforeLearning(Exception):
    """The person stopped the run before its first step: there is nothing to save."""


class LossIsLost(Exception):
    """The loss was not a number for too many steps in a row. `rows` says which rows to look at."""

    def __init__(self, watcher: Watcher, rows: str) -> None:
        super().__init__(rows)
        self.watcher, self.rows = watcher, rows


@dataclass
class StepTally:
    """The run so far: losses in nats a trained token; `earlier_seconds` is what it took up to where it was resumed."""

    step: int = 0
    last_sound_step: int = 0
    final_loss: float | None = None
    train_seconds: float = 0.0
    tokens: int = 0
    stopped: bool = False
    ended_early: str = ""
    earlier_seconds: float = 0.0


class Watcher(TrainerCallback):
    """transformers calls this between steps. `trainer` is set once there is one; `heartbeat` records what happens."""

    trainer: Any = None

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        rows: Rows,
        total: int,
        sampler: MemorySampler,
        evaluator: Evaluator,
        settled: dict[str, Any] | None = None,
        start: ResumePoint | None = None,
        heartbeat: HeartbeatWriter | None = None,
    ) -> None:
        """`settled` is what `ResumePoint.choices` reads back; `start` the checkpoint that the run goes on from."""
        self.run, self.recipe, self.rows = run, recipe, rows
        self.total, self.sampler, self.evaluator = total, sampler, evaluator
        self.tally, self.health = StepTally(), Health()
        self.settled, self.resumed = settled or {}, start is not None
        self.saver = Saver(run, recipe.checkpoint, start.step if start else 0)
        self.heartbeat = heartbeat or HeartbeatWriter(run)
        self.stop_asked = self.save_asked = False
        self._evaluate_at = {round(total * (i + 1) / recipe.evaluation.times) for i in range(recipe.evaluation.times)}
        self._evaluate_at.add(total)
        self._seen: Request | None = None
        self._began = time.monotonic() - max(0.0, time.time() - (run.status().started or time.time()))
        self._step_began = 0.0
        self._stream: LayerStream | None = None
        self._traffic: Traffic | None = None
        self._beat = 0.0
        if start is not None:
            self._restore(start.progress)

    def _restore(self, progress: dict[str, Any]) -> None:
        """Restore the state of when the checkpoint was made."""
        self.tally = replace(StepTally(**progress["tally"]), stopped=False, ended_early="")
        self.health = Health(**progress["health"])
        self.evaluator.restore(progress["evaluator"])
        self.sampler.step = self.tally.step

    def progress(self) -> dict[str, Any]:
        """What a checkpoint says of the run besides the trainer's state; `_restore` and `ResumePoint` read it back."""
        fallback = self.trainer.fallback
        return {
            "settled": self.settled,
            "way": asdict(fallback.strategy) if fallback else self.settled["way"],
            "tally": {**asdict(self.tally), "earlier_seconds": self.seconds()},
            "health": asdict(self.health),
            "evaluator": self.evaluator.as_dict(),
            "recipe": self.recipe.model_dump(),
            "total": self.total,
        }

    def seconds(self) -> float:
        """The time since the run was started, and what it took before it was resumed."""
        return self.tally.earlier_seconds + time.monotonic() - self._began

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Measure the base before the first step: step 0."""
        self._stream = stream_of(self.trainer.model)
        if self.resumed:
            self.trainer.real_tokens = self.tally.tokens
        else:
            with self.heartbeat.at("evaluating"):
                self.evaluator.evaluate(self.trainer, 0)
        if self.run.is_to_stop():
            raise StoppedBeforeLearning
        step = self.tally.step
        self.run.write_status(state="training", step=step, total=self.total, heartbeat=time.time(), message="")
        self.heartbeat.saved(self.saver.last_step or None)
        self.heartbeat.turn_to("step")
        self._begin_step()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **named: Any) -> None:
        """A step is done: write its line, then evaluate, save or stop where it is time to."""
        if not logs or "loss" not in logs:
            return
        step = state.global_step
        self.heartbeat.stepped(step)
        self.write_step(step, logs)
        self._check_loss(step)
        self._follow_request(control)
        ending = self.stop_asked or step == self.total
        if step in self._evaluate_at or self.stop_asked:
            with self.heartbeat.at("evaluating"):
                self.evaluator.evaluate(self.trainer, step, step in self._evaluate_at)
            ending |= self._end_early(step, control)
        if ending or self.save_asked or self.saver.is_due(step):
            self.save(step, ending)
        self._update_status(step, ending)
        if ending:
            self.heartbeat.turn_to("saving")  # the adapter, and what came of the run
        self._begin_step()

    def _begin_step(self) -> None:
        self._step_began = time.perf_counter()
        self._traffic = Traffic.of(self._stream) if self._stream is not None else None

    def write_step(self, step: int, logs: dict[str, float]) -> None:
        """The line of a finished step, and its share of what the run has come to."""
        loss, tokens = self.trainer.outcome.loss, self.trainer.real_tokens - self.tally.tokens
        seconds = time.perf_counter() - self._step_began
        self.tally.step = step
        if math.isfinite(loss):
            self.tally.final_loss = loss
        self.tally.tokens += tokens
        self.tally.train_seconds += seconds
        self.sampler.step = step
        self.run.append(
            "metrics.jsonl",
            {
                "step": step,
                "time": time.time(),
                "loss": _finite(loss),
                "lr": _finite(logs.get("learning_rate")),
                "grad_norm": _finite(self.trainer.outcome.grad_norm),
                "tokens": tokens,
                "tokens_per_second": round(tokens / seconds, 1),
                **self._streamed(seconds),
            },
        )

    def _streamed(self, seconds: float) -> dict[str, float]:
        if self._stream is None or self._traffic is None:
            return {}
        return Traffic.of(self._stream).since(self._traffic, seconds)

    def _check_loss(self, step: int) -> None:
        """Warn of what is wrong with the step's loss. Raises LossIsLost after too many steps without one."""
        outcome = self.trainer.outcome
        if outcome.lost:
            in_a_row = self.health.lost_step()
            what = "gradient" if math.isfinite(outcome.loss) else "loss"
            self.warn(f"Step {step:,}: the {what} was NaN or infinite; the step was skipped ({in_a_row} in a row).")
            if in_a_row >= MOST_IN_A_ROW:
                raise LossIsLost(self, named(outcome.suspects))
            return
        if outcome.overflowed:
            self._report_overflow(step)
            return
        self.tally.last_sound_step = step
        jump = self.health.sound_step(outcome.loss)
        if jump is not None:
            self.warn(_of_a_jump(step, jump, self.recipe.train.learning_rate))

    def _report_overflow(self, step: int) -> None:
        """Usual at the start of a run in fp16, and not counted towards the losses that end one."""
        self.health.lost += 1
        scale = self.trainer.accelerator.scaler.get_scale()
        self.run.event(
            "overflow",
            f"Step {step:,}: the gradient overflowed fp16; the step was skipped, and gradients are scaled by "
            f"{scale:,.0f} from now on.",
        )

    def _follow_request(self, control: TrainerControl) -> None:
        """Do what control.json asks: `stop` after this step, or `save`."""
        request = self.run.asked()
        if request is not None and request != self._seen:
            self._seen = request
            self.stop_asked |= request.action == "stop"
            self.save_asked |= request.action == "save"
        if self.stop_asked:
            self.tally.stopped = self.tally.step < self.total
            control.should_training_stop = True

    def _end_early(self, step: int, control: TrainerControl) -> bool:
        """Stop where evaluations brought nothing better for as long as the recipe has patience. Returns whether."""
        if not self.evaluator.out_of_patience() or step == self.total or self.stop_asked:
            return False
        best = self.evaluator.best
        self.tally.ended_early = (
            f"Stopped early at step {step:,} of {self.total:,}: {best.since} evaluations in a row were not better "
            f"than step {best.step or 0:,}."
        )
        self.run.event("early", self.tally.ended_early)
        control.should_training_stop = True
        return True

    def warn(self, message: str) -> None:
        """Report what went wrong and was handled; the run's page shows it at the top."""
        self.run.event("warning", message)

    def report_change(self, before: Strategy, now: Strategy, shortage: Shortage) -> None:
        """Memory ran out and the run continues with less: report it, and add it to plan.json."""
        step, batch = self.tally.step + 1, self.recipe.train.effective_batch
        asked = "" if shortage.asked_bytes is None else f" ({show_size(shortage.asked_bytes)} more was requested)"
        how = _how(before, now, batch)
        self.warn(f"Step {step:,}: memory ran out{asked}; the step is repeated, {how}. The result stays the same.")
        change = {"step": step, **now.as_json(batch), "because": "memory ran out"}
        plan = self.run.plan()
        write_json(self.run.dir / "plan.json", {**plan, "changed": [*plan.get("changed", []), change]})

    def save(self, step: int, last: bool = False) -> None:
        """Write a checkpoint now. Where there is no room, that is reported; the run's `last` one raises."""
        self.save_asked = False
        with self.heartbeat.at("saving"):
            self.saver.save(step, self.trainer, self.progress(), last)
        self.heartbeat.saved(self.saver.last_step or None)

    def _update_status(self, step: int, ending: bool) -> None:
        """Keep status.json fresh, but not more often than a person can see."""
        now = time.monotonic()
        if now - self._beat >= HEARTBEAT_SECONDS or ending:
            self._beat = now
            message = "Stopping: saving the progress." if self.stop_asked else self.saver.trouble()
            self.run.write_status(step=step, heartbeat=time.time(), message=message)


def _how(before: Strategy, now: Strategy, batch: int) -> str:
    """How the strategy has become more frugal, for a person."""
    if now.micro_batch != before.micro_batch:
        times = batch // now.micro_batch
        return f"now with micro-batch {now.micro_batch}, {times} times per step, instead of {before.micro_batch}"
    if now.checkpointing != before.checkpointing:
        return f"now with gradient checkpointing {now.checkpointing}, which recomputes activations"
    if now.offload != before.offload:
        return "now with activations offloaded to CPU memory, which is slower"
    return "now with freed memory returned to the system at once, which is slower"


def _of_a_jump(step: int, jump: LossJump, learning_rate: float) -> str:
    return (
        f"Step {step:,}: the loss has jumped from about {jump.usual:.2f} to {jump.now:.2f}. If it does not recover, "
        f"stop the run and start it with a lower learning rate: it is {learning_rate:g}; try {learning_rate / 3:.1g}."
    )


def named(rows: list[int]) -> str:
    """'row 3', 'rows 3, 7 and 2 more'."""
    shown = ", ".join(f"{row:,}" for row in rows[:ROWS_NAMED])
    more = f" and {len(rows) - ROWS_NAMED:,} more" if len(rows) > ROWS_NAMED else ""
    return f"{'row' if len(rows) == 1 else 'rows'} {shown}{more}"


def _finite(value: float | None) -> float | None:
    """The value as JSON can hold it: None for a loss that is not a number."""
    return float(value) if value is not None and math.isfinite(value) else None
