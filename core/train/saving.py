"""When a run is saved, what that takes, and what happens when the disk is full or memory runs out."""

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import TrainingError
from core.model.load import is_out_of_memory
from core.recipe import CheckpointSettings
from core.runs.manifest import valid_checkpoints
from core.runs.store import Run
from core.sizes import show_bytes
from core.system.full_disk import free_some, is_disk_full
from core.train.checkpoints import save_checkpoint
from core.train.memory_limit import lifted
from core.train.oom_retry import CLOSE_OTHERS, twice

# After a save that failed, the next attempt comes so soon.
AGAIN_MINUTES = 1.0


class DiskIsFull(TrainingError):
    """The last save of a run failed: the disk is full."""


@dataclass(frozen=True)
class _Obstacle:
    """What keeps a run from being saved, and what a person can do about it, in a sentence."""

    what: str
    remedy: str


_OUT_OF_MEMORY = _Obstacle("Memory ran out", CLOSE_OTHERS)


class Saver:
    """Writes a run's checkpoints: by steps, by time, and a first one early, to see that saving works."""

    def __init__(self, run: Run, settings: CheckpointSettings, last_step: int = 0) -> None:
        """`last_step` is that of the newest whole checkpoint; 0 before there is one."""
        self.run, self.settings = run, settings
        self.folder = run.dir / "checkpoints"
        self.last_step, self._last_time = last_step, time.monotonic()
        self._checked = False
        self._failed: _Obstacle | None = None

    def is_due(self, step: int) -> bool:
        """Whether it is time to save after `step`."""
        minutes = (time.monotonic() - self._last_time) / 60
        if self._failed:
            return minutes >= AGAIN_MINUTES
        every, wait = self.settings.every_steps, self.settings.every_minutes
        by_steps = every is not None and step % every == 0
        return self.last_step == 0 or by_steps or (wait is not None and minutes >= wait)

    def save(self, step: int, trainer: Any, progress: dict[str, Any], last: bool = False) -> None:
        """Write a checkpoint now. Where there is no room, it is reported and saving retried.

        The `last` one raises DiskIsFull, or the error of the memory that ran out.
        """
        if step == self.last_step and not self._failed:
            return
        began = time.perf_counter()
        try:
            folder = twice(partial(self._write, step, trainer, progress))
        except Exception as error:
            short = is_out_of_memory(error)
            if not (short or is_disk_full(error)) or (short and last):
                raise
            self._no_room(step, _OUT_OF_MEMORY if short else self._full_disk(), last)
            return
        self.last_step, self._last_time, self._failed = step, time.monotonic(), None
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        seconds = time.perf_counter() - began
        self.run.event("checkpoint", f"Saved step {step:,}: {size / 1e6:.1f} MB in {seconds:.2f} s.")
        self._check_room(size)

    def trouble(self) -> str:
        """What the person has to see to, in a sentence; empty where there is nothing."""
        if not (self._failed or self.run.has_lines_waiting()):
            return ""
        met = self._failed or self._full_disk()
        return f"{met.what}. Training continues, but nothing more can be saved. {met.remedy}"

    def newest(self) -> str:
        """Which checkpoint there is, in a sentence."""
        kept = valid_checkpoints(self.folder)
        return (
            f"The newest checkpoint is that of step {int(kept[0].name):,}." if kept else "There is no checkpoint yet."
        )

    def _write(self, step: int, trainer: Any, progress: dict[str, Any]) -> Path:
        with lifted():
            self.run.flush()  # what resuming cuts back to this step must be there, after a power cut as well
            return save_checkpoint(self.folder, step, trainer, self.settings.keep, progress)

    def _full_disk(self) -> _Obstacle:
        return _Obstacle("The disk is full", free_some(self.run.workspace))

    def _no_room(self, step: int, met: _Obstacle, last: bool) -> None:
        what = f"{met.what}: step {step:,} could not be saved. {self.newest()}"
        if last:
            raise DiskIsFull(f"{what} {met.remedy} Then resume the run.")
        if not self._failed:
            again = f"Training continues, and saving is retried every {AGAIN_MINUTES:.0f} min."
            self.run.event("warning", f"{what} {again} {met.remedy}")
        self._failed, self._last_time = met, time.monotonic()

    def _check_room(self, size: int) -> None:
        """Once, with the size of a checkpoint known: will all that are to be kept find room, and one more?"""
        if self._checked:
            return
        self._checked = True
        needed, free = size * (self.settings.keep + 1), shutil.disk_usage(self.folder).free
        if free < needed:
            self.run.event(
                "warning",
                f"The disk may soon be full: {show_bytes(free)} are free, and {self.settings.keep + 1} checkpoints of "
                f"{show_bytes(size)} take {show_bytes(needed)}. Free some space, or lower checkpoint.keep.",
            )
