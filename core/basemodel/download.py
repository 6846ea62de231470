"""Downloads a model from the Hub: what training needs of it and no more, with progress, to be stopped and resumed.

Before that it checks whether the files there can be trained at all. What an architecture needs is found by building it,
which needs torch: a separate process does that, since the one that downloads has not imported torch.

Several files are fetched at once, each in its own thread. Progress is read off the disk, so it is right whoever writes
there, and stopping does not wait for the network. Imports no torch.
"""

import json
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.basemodel.fetch import Fetch, Halted
from core.basemodel.find import FoundModel
from core.basemodel.hub import bytes_here, fetch_small, refusal, refuse_full_disk, snapshot_folder
from core.errors import ModelError
from core.sizes import show_bytes, show_duration
from core.system.process import as_process

AT_ONCE = 4
LOOK_SECONDS = 0.25
CHECK_SECONDS = 0.1
SMOOTHED_SECONDS = 8.0


class DownloadStopped(Exception):
    """Stopped by the person. What had come is kept, and the next download goes on from there."""


@dataclass(frozen=True)
class Progress:
    """How far a download is. `bytes_per_second` and `seconds_left` are None while nothing comes; `note` says why."""

    label: str
    done_bytes: int
    total_bytes: int
    files_done: int
    files: int
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    note: str = ""

    def line(self) -> str:
        """For a person: 'Downloading Qwen2.5-0.5B: 1.2 of 3.1 GB, file 4 of 9, 24 MB/s, 1 min 20 s left'."""
        parts = [f"{self.amount()}, file {min(self.files_done + 1, self.files)} of {self.files}"]
        if self.bytes_per_second is not None and self.seconds_left is not None:
            parts.append(f"{show_bytes(self.bytes_per_second)}/s, {show_duration(self.seconds_left)} left")
        parts += [self.note] if self.note else []
        return f"Downloading {self.label}: {', '.join(parts)}"

    def amount(self) -> str:
        """'1.2 of 3.1 GB'."""
        done, total = show_bytes(self.done_bytes), show_bytes(self.total_bytes)
        number, _, unit = done.partition(" ")
        return f"{number if total.endswith(unit) else done} of {total}"


def download(found: FoundModel, progress: Callable[[Progress], None], stop: Callable[[], bool]) -> FoundModel:
    """Download what is missing of `found` and return it as it is on the disk; if it is here, at once.

    `progress` and `stop` are called several times a second, in this thread. Raises DownloadStopped, and
    ModelError: gated, gone, no network, too many requests, a fault of the Hub, damaged, no room, not writable.
    """
    for state in downloading(found, stop):
        progress(state)
    return here(found)


def downloading(found: FoundModel, stop: Callable[[], bool]) -> Iterator[Progress]:
    """`download` as an iterator over its progress."""
    if found.folder is not None:
        return
    refuse_full_disk(found.source, found.download_bytes)
    halt = threading.Event()
    fetches = [Fetch(found.source, str(found.revision), file, halt) for file in found.files]
    meter = _Meter(found, fetches)
    try:
        # The weights last: a snapshot that has them all is taken for whole.
        for group in (_Crew(fetches, weights=False), _Crew(fetches, weights=True)):
            while group.at_work():
                yield meter.read()
                if stop():
                    raise DownloadStopped
            group.raise_failure(found.source)
    finally:
        halt.set()
    yield meter.read()


def here(found: FoundModel) -> FoundModel:
    """`found` with its files on the disk."""
    if found.folder is not None:
        return found
    return replace(found, folder=snapshot_folder(found.source, str(found.revision)), files=(), parameters_online=0)


def bring_settings(found: FoundModel) -> Path:
    """Fetch what a model online has beside its weights. Returns the folder. Raises ModelError."""
    for file in found.files:
        if not file.name.endswith(".safetensors"):
            fetch_small(found.source, file.name, found.revision)
    return snapshot_folder(found.source, str(found.revision))


class _Crew:
    """Threads that do a group of fetches. They are daemons, so one that waits for the network holds nothing up."""

    def __init__(self, fetches: Sequence[Fetch], weights: bool) -> None:
        self._waiting: queue.SimpleQueue[Fetch] = queue.SimpleQueue()
        for fetch in fetches:
            if fetch.file.name.endswith(".safetensors") == weights:
                self._waiting.put(fetch)
        self._failures: list[Exception] = []
        self._threads: list[threading.Thread] = []

    def at_work(self) -> bool:
        """Whether files are still on their way; takes a moment to say so. The first call starts them."""
        if not self._threads:
            count = min(AT_ONCE, self._waiting.qsize())
            self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
            for thread in self._threads:
                thread.start()
        alive = [thread for thread in self._threads if thread.is_alive()]
        if alive:
            alive[0].join(LOOK_SECONDS)
        return bool(alive) and not self._failures

    def _work(self) -> None:
        while not self._failures:
            try:
                self._waiting.get_nowait().run()
            except (queue.Empty, Halted):
                return
            except Exception as error:  # raised by the thread that waits for this one
                self._failures.append(error)

    def raise_failure(self, model_id: str) -> None:
        """Raise what ended the work early, as a sentence. Raises ModelError."""
        from huggingface_hub.errors import HTTPError

        if not self._failures:
            return
        error = self._failures[0]
        raise refusal(error, model_id) if isinstance(error, (HTTPError, OSError)) else error


class _Meter:
    """Reads the progress off the disk, with the speed of the last seconds."""

    def __init__(self, found: FoundModel, fetches: Sequence[Fetch]) -> None:
        self._found, self._fetches = found, fetches
        self._total = sum(file.bytes for file in found.files)
        self._samples: deque[tuple[float, int]] = deque()

    def read(self) -> Progress:
        """The progress now."""
        now, done = time.monotonic(), bytes_here(self._found.source, str(self._found.revision), self._found.files)
        self._samples.append((now, done))
        while now - self._samples[0][0] > SMOOTHED_SECONDS:
            self._samples.popleft()
        since, before = self._samples[0]
        speed = (done - before) / (now - since) if now > since and done > before else None
        return Progress(
            label=self._found.label.rpartition("/")[2],
            done_bytes=done,
            total_bytes=self._total,
            files_done=sum(fetch.whole for fetch in self._fetches),
            files=len(self._fetches),
            bytes_per_second=speed,
            seconds_left=(self._total - done) / speed if speed else None,
            note=next((fetch.note for fetch in self._fetches if fetch.note), ""),
        )


def stopped_sentence(last: Progress | None) -> str:
    """What a stop left behind, for a person."""
    return (
        f"Stopped at {last.amount()}. What was downloaded is kept, and the next start continues from there."
        if last
        else ""
    )


def refuse_misfit_online(found: FoundModel, stop: Callable[[], bool] = lambda: False) -> None:
    """Raise ModelError where the weights of `found` on the Hub do not suit its architecture, or it cannot be built.

    A model that is here is checked when it is loaded. `stop` is called several times a second. Raises DownloadStopped.
    """
    if found.folder is not None:
        return
    wanted = as_process("core.model.fit", found.source, str(found.revision))
    quiet = subprocess.DEVNULL
    with subprocess.Popen(**wanted, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet) as child:
        try:
            output = _wait(child, stop)
        finally:
            child.kill()
    lines = output.decode("utf-8", "replace").strip().splitlines()
    if child.returncode == 0 and lines and (error := json.loads(lines[-1])["error"]):
        raise ModelError(error)


def _wait(child: subprocess.Popen[bytes], stop: Callable[[], bool]) -> bytes:
    """What the child prints until it ends."""
    while True:
        try:
            return child.communicate(timeout=CHECK_SECONDS)[0]
        except subprocess.TimeoutExpired:
            if stop():
                raise DownloadStopped from None
