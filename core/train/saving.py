"""When a run is saved, what that takes, and what happens when the disk is full."""

import shutil
import time
from typing import Any

from core.errors import TrainingError
from core.recipe import CheckpointSettings
from core.runs.manifest import valid_checkpoints
from core.runs.store import Run
from core.sizes import show_bytes
from core.system.full_disk import free_some, is_disk_full
from core.train.checkpoints import save_checkpoint
from core.train.memory_limit import lifted

# After a save that failed on a full disk, the next attempt comes so soon.
AGAIN_MINUTES = 1.0


class DiskIsFull(TrainingError):
    """The last save of a run failed: the disk is full."""


class Saver:
    """Writes a run's checkpoints: by steps, by time, and a first one early, to see that saving works."""

    def __init__(self, run: Run, settings: CheckpointSettings, last_step: int = 0) -> None:
        """`last_step` is that of the newest whole checkpoint; 0 before there is one."""
        self.run, self.settings = run, settings
        self.folder = run.dir / "checkpoints"
        self.last_step, self._last_time = last_step, time.monotonic()
        self._checked = self._failed = False

    def is_due(self, step: int) -> bool:
        """Whether it is time to save after `step`."""
        minutes = (time.monotonic() - self._last_time) / 60
        if self._failed:
            return minutes >= AGAIN_MINUTES
        every, wait = self.settings.every_steps, self.settings.every_minutes
        by_steps = every is not None and step % every == 0
        return self.last_step == 0 or by_steps or (wait is not None and minutes >= wait)

    def save(self, step: int, trainer: Any, progress: dict[str, Any], last: bool = False) -> None:
        """Write a checkpoint now. A full disk is reported and saving retried; the `last` one raises DiskIsFull."""
        if step == self.last_step and not self._failed:
            return
        began = time.perf_counter()
        try:
            with lifted():
                self.run.flush()  # what resuming cuts back to this step must be there, after a power cut as well
                folder = save_checkpoint(self.folder, step, trainer, self.settings.keep, progress)
        except Exception as error:
            if not is_disk_full(error):
                raise
            self._no_room(step, last)
            return
        self.last_step, self._last_time, self._failed = step, time.monotonic(), False
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        seconds = time.perf_counter() - began
        self.run.event("checkpoint", f"Saved step {step:,}: {size / 1e6:.1f} MB in {seconds:.2f} s.")
        self._check_room(size)

    def trouble(self) -> str:
        """What the person has to see to, in a sentence; empty where there is nothing."""
        if not (self._failed or self.run.has_lines_waiting()):
            return ""
        return f"The disk is full. Training continues, but nothing more can be saved. {free_some(self.run.workspace)}"

    def _no_room(self, step: int, last: bool) -> None:
        kept = valid_checkpoints(self.folder)
        what = f"The newest checkpoint is that of step {int(kept[0].name):,}" if kept else "There is no checkpoint yet"
        if last:
            raise DiskIsFull(
                f"The disk is full: step {step:,} could not be saved. {what}. {free_some(self.run.workspace)} "
                "Then resume the run."
            )
        if not self._failed:
            self.run.event(
                "warning",
                f"The disk is full: step {step:,} could not be saved. {what}. Training continues, and saving is "
                f"retried every {AGAIN_MINUTES:.0f} min. {free_some(self.run.workspace)}",
            )
        self._failed, self._last_time = True, time.monotonic()

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
