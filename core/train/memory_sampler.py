"""Samples the worker's memory twice a second into memory.jsonl."""

from __future__ import annotations

import threading
import time

import torch

from core.runs.store import Run
from core.runs.tail import Tail
from core.system.hardware import Device, ReadingError, Used, device_used_bytes, temperature_and_power

INTERVAL_SECONDS = 0.5


class MemorySampler:
    """A thread that writes one line a sample. On a CPU `process_bytes` is resident memory, and torch has no figures.

    On a GPU memory that is attributed to no process counts too if it came after the start: paged optimizer states.
    Where the driver hides what a process uses, what the whole card uses beyond its use before the run stands for it.
    """

    def __init__(self, run: Run, device: Device, pid: int) -> None:
        self.run, self.device, self.pid = run, device, pid
        self.step = 0
        self.peak_process_bytes = 0
        self._before: Used | None = None  # what was in use before this process came to the device
        before = Tail(run.dir / "memory.jsonl").read()[-1:]  # of a run that is resumed
        self.started = time.monotonic() - sum(row.get("seconds", 0.0) for row in before)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="memory", daemon=True)

    def __enter__(self) -> MemorySampler:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._end.set()
        self._thread.join()

    def _loop(self) -> None:
        try:
            self._sample()
            while not self._end.wait(INTERVAL_SECONDS):
                self._sample()
            self._sample()
        except ReadingError as error:
            self.run.event(
                "memory", f"Memory use can no longer be read: {error}. The run continues without the memory chart."
            )

    def _sample(self) -> None:
        cuda = self.device.kind == "cuda"
        used = device_used_bytes(self.device, self.pid)
        before = self._before = self._before or used
        process = max(0, used.device - before.device) if used.process is None else used.process
        if used.process is not None and used.unattributed is not None and before.unattributed is not None:
            process += max(0, used.unattributed - before.unattributed)
        self.peak_process_bytes = max(self.peak_process_bytes, process)
        self.run.append(
            "memory.jsonl",
            {
                "seconds": round(time.monotonic() - self.started, 2),
                "step": self.step,
                "allocated_bytes": torch.cuda.memory_allocated() if cuda else None,
                "reserved_bytes": torch.cuda.memory_reserved() if cuda else None,
                "process_bytes": process,
                "device_bytes": used.device,
                **temperature_and_power(self.device),
            },
        )

    def peaks(self) -> dict[str, int | None]:
        """The highest that was seen: `tensors`, `reserved` (torch's, on a GPU only) and `process`, in bytes."""
        cuda = self.device.kind == "cuda"
        return {
            "tensors": torch.cuda.max_memory_allocated() if cuda else None,
            "reserved": torch.cuda.max_memory_reserved() if cuda else None,
            "process": self.peak_process_bytes,
        }
