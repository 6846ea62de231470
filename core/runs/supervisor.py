"""Starts workers, one at a time, queues the rest, adopts running ones, stops and kills them.

A worker has its own process session and outlives the server that started it. The server and the command line may both
start runs, so every decision is made under one file lock.
"""

import contextlib
import subprocess
import sys
import time

import psutil

from core.errors import RunError
from core.runs.device_lock import ask_to_give_way, holder
from core.runs.heartbeat import read_heartbeat, stopping
from core.runs.manifest import newest_valid
from core.runs.notify import forget, tell_end
from core.runs.queue import at_work, leave, newest, order
from core.runs.store import Run
from core.sizes import show_duration
from core.system.file_lock import file_lock
from core.system.process import apart, child_environment, end_tree, process_started
from core.workspace import ROOT, Workspace, write_json

WORKER = (sys.executable, "-m", "core.train.worker")


class Supervisor:
    """Starts and stops the runs of a workspace. Its only state is the handles of its children."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._children: list[subprocess.Popen[bytes]] = []
        self._deciding = workspace.state / "start.lock"
        self._watched: Run | None = None
        self._ended: Run | None = None

    def current(self) -> Run | None:
        """The active run, whoever started it."""
        return at_work(self.workspace)

    def queued(self) -> list[Run]:
        """The queued runs, the next one first."""
        return order(self.workspace)

    def ended_last(self) -> Run | None:
        """The run that ended last since this supervisor started; before that, the newest, in any state."""
        return self._ended if self._ended is not None and self._ended.dir.exists() else newest(self.workspace)

    def advance(self) -> Run | None:
        """Start the next queued run if the device is free, and kill one whose stop takes too long. Call it often.

        Returns the started run. Raises OSError where memory or disk is too full to start one.
        """
        self._children = [child for child in self._children if child.poll() is None]
        self.watch()
        if not self.queued():
            return None
        with file_lock(self._deciding):
            waiting = self.queued()
            if not waiting or self.current() is not None or not self._has_device(waiting[0]):
                return None
            return self._start_first(waiting)

    def _has_device(self, run: Run) -> bool:
        """Whether the device is free for `run`; a holder that can give way is asked to."""
        by = holder(self.workspace)
        if by is not None and by.kind != "run":
            ask_to_give_way(self.workspace, run)
        return by is None

    def _start_first(self, waiting: list[Run]) -> Run:
        """Start the first run that can be started: one that cannot must not hold up the others."""
        failed: OSError | None = None
        for run in waiting:
            try:
                self.start_worker(run)
            except OSError as error:
                failed = error
                continue
            leave(self.workspace, run)
            return run
        assert failed is not None
        raise failed

    def start_worker(self, run: Run) -> None:
        """Start the worker of `run` in a process session of its own, its output in worker.log.

        The worker waits until its PID is in status.json, and from then on it alone writes that file.
        """
        write_json(run.dir / "control.json", {})  # there is room for a request then, however full the disk becomes
        forget(run)
        with (run.dir / "worker.log").open("ab") as log:
            child = subprocess.Popen(
                [*WORKER, str(run.dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=child_environment(),
                **apart(),
            )
        self._children.append(child)
        with contextlib.suppress(OSError):  # then the worker, which is there by now, writes it in a moment
            self._hand_over(run, child.pid)

    def _hand_over(self, run: Run, pid: int) -> None:
        """Write the worker's PID to status.json."""
        now = time.time()
        try:
            started = process_started(pid)
        except psutil.NoSuchProcess:
            run.write_status(state="failed", ended=now, message="The worker ended immediately; see its log.")
            return
        me = {"pid": pid, "pid_started": started}
        run.write_status(state="preparing", started=now, heartbeat=now, message="Starting.", **me)

    def waits_for(self) -> str:
        """What the first in the queue waits for, as a sentence."""
        run, by = self.current(), holder(self.workspace)
        if run is not None:
            return f"It starts when “{run.name}” has ended."
        if by is not None and by.kind == "export":
            return f"It starts when {by.in_words()} releases the device."
        if by is not None and by.kind != "run":
            return f"It starts when {by.in_words()} releases the device, which has been requested."
        return "It starts in a moment."

    def stop(self, run: Run) -> str:
        """Ask `run` to stop and save after the current step. Returns what will happen, for the user.

        It is killed where that takes too long (`advance`). Raises RunError where there is nothing to stop.
        """
        with file_lock(self._deciding):
            status = run.status()
            if status.state == "queued":
                run.write_status(state="stopped", ended=time.time(), message="Stopped before it started.")
                leave(self.workspace, run)
                return "Removed from the queue."
            if not status.active:
                raise RunError(f"Run {run.id} is not running: it is {status.state}.")
            if stopping(run) is None:  # else it is asked already, and its time goes on
                run.request("stop")
        if status.state == "preparing":
            return "Stopping; nothing has been learned yet."
        return "Stopping after this step; the checkpoint and the adapter are saved."

    def kill(self, run: Run, why: str = "Ended at once") -> str:
        """Kill the worker of `run` and all its descendants at once.

        Only what came after the last checkpoint is lost. `why` begins the run's final message, which is returned.
        Raises RunError where there is nothing to kill, or killing it fails.
        """
        with file_lock(self._deciding):
            status = run.status()
            if not status.active or status.pid is None or status.pid_started is None:
                raise RunError(f"Run {run.id} is not running: it is {status.state}.")
            if not end_tree(status.pid, status.pid_started):
                raise RunError(
                    f"The system cannot end the worker (process {status.pid}): a driver or disk does not respond. "
                    f"Wait, or restart the machine; the last checkpoint is safe."
                )
            last = run.status()
            if last.state != "interrupted":  # it came to its end by itself in that very moment
                return last.message
            return self._write_last_word(run, why)

    def _write_last_word(self, run: Run, why: str) -> str:
        """Write the final status that the dead worker of `run` could not write."""
        heartbeat, status = read_heartbeat(run), run.status()
        step = max(status.step, heartbeat.step if heartbeat is not None and heartbeat.pid == status.pid else 0)
        saved, _ = newest_valid(run.dir / "checkpoints")
        kept = "Nothing had been saved yet."
        if saved is not None:
            kept = f"Progress up to step {int(saved.name):,} is saved in its checkpoint. Resume the run to continue."
        message = f"{why}{f', at step {step:,}' if step else ''}. {kept}"
        run.event("ended", message)
        run.write_status(state="stopped", step=step, ended=time.time(), message=message)
        return message

    def watch(self) -> None:
        """Kill the run whose stop takes too long; notify the user of one that ended.

        A worker that ends by itself sends the notification itself; one that was killed cannot.
        """
        run = self.current()
        asked = stopping(run) if run is not None else None
        if run is not None and asked is not None and asked.left_seconds <= 0:
            why = f"It did not stop within {show_duration(asked.limit_seconds)} and was killed"
            with contextlib.suppress(RunError):  # it ended meanwhile, or cannot be ended: the page says what there is
                self.kill(run, why)
        if self._watched is not None and self._watched != run:
            self._ended = self._watched
            tell_end(self._watched)
        self._watched = run
