"""A run's heartbeat: the worker writes every second what it is doing, so that a reader can tell work from hanging.

All times are of the system's monotonic clock, which every process reads alike, nobody sets, and which stands still
while the machine sleeps. It begins anew with the machine, but so does every worker.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil

from core.runs.store import Run
from core.sizes import show_duration
from core.system.hardware import Device, temperature_and_power
from core.system.process import is_alive
from core.workspace import read_json

BEAT_SECONDS = 1.0
FILE = "pulse.json"
# A worker that is silent so long is not only slow to be scheduled.
SILENT_SECONDS = 60.0
# How long one thing may take that has not been timed yet, and at least where it has. None: as long as it takes.
LIMITS: dict[str, tuple[float | None, float]] = {
    "loading": (3600.0, 3600.0),
    "downloading": (None, 0.0),
    "step": (1800.0, 120.0),
    "evaluating": (3600.0, 600.0),
    "saving": (900.0, 300.0),
}
TIMED = ("step", "evaluating", "saving")
TIMES_THE_USUAL = 10.0
RECENT = 20
# How long a stop may take beyond the time that a step, an evaluation and a save usually do.
STOP_SECONDS = 60.0
_NOTHING_FOR = {
    "loading": "It has been loading for {time}",
    "step": "No step for {time}",
    "evaluating": "It has been evaluating for {time}",
    "saving": "It has been saving for {time}",
}


@dataclass(frozen=True)
class Heartbeat:
    """What the worker wrote last. Spans in seconds; `usual` of each thing that has been timed.

    `card` holds `temperature_celsius` and `power_watts`, on a GPU.
    """

    pid: int
    beat: int
    at: float
    seconds: float
    doing: str
    since: float
    step: int
    saved_step: int | None
    last_step_seconds: float | None
    usual: dict[str, float]
    card: dict[str, float | None]

    def silent(self, now: float) -> float:
        """How long the worker has not been heard of at the moment `now` of the monotonic clock."""
        return max(0.0, now - self.at)


class HeartbeatWriter:
    """The worker's end: a thread that beats into pulse.json. Before `with` it only listens.

    `device` is set once it is known: then the card's temperature and power are written too.
    """

    def __init__(self, run: Run, pid: int = 0) -> None:
        self.run, self.pid = run, pid
        self.device: Device | None = None
        self.began = self._since = time.monotonic()
        self._doing = "loading"
        self._step, self._beats = 0, 0
        self._saved: int | None = None
        self._times: dict[str, deque[float]] = {}
        self._end, self._lock, self._writing = threading.Event(), threading.Lock(), threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="heartbeat", daemon=True)

    def __enter__(self) -> HeartbeatWriter:
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=2 * BEAT_SECONDS)

    @property
    def seconds(self) -> float:
        """How long ago the worker began."""
        return time.monotonic() - self.began

    def turn_to(self, what: str) -> None:
        """From now on the worker is at `what`, one of LIMITS."""
        with self._lock:
            self._doing, self._since = what, time.monotonic()

    def stepped(self, step: int) -> None:
        """Step number `step` is done, and the next one under way."""
        with self._lock:
            self._step = step
            self._remember("step")
        self.turn_to("step")

    @contextlib.contextmanager
    def at(self, what: str) -> Iterator[None]:
        """Between two steps: be at `what`, and remember how long it took."""
        self.turn_to(what)
        yield
        with self._lock:
            self._remember(what)
        self.turn_to("step")

    def saved(self, step: int | None) -> None:
        """A whole checkpoint holds step number `step`; None where there is none yet."""
        self._saved = step
        if self._thread.is_alive():  # at once: whoever may have to end this worker says what is kept
            self._beat()

    def _remember(self, what: str) -> None:
        self._times.setdefault(what, deque(maxlen=RECENT)).append(time.monotonic() - self._since)

    def _loop(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        beside = self.run.dir / f".{FILE}"
        # A full disk, a reader on Windows: this beat is lost, and the next one may not be.
        with self._writing, contextlib.suppress(OSError):
            beside.write_text(json.dumps(self._values()), encoding="utf-8")
            beside.replace(self.run.dir / FILE)

    def _values(self) -> dict[str, Any]:
        card = temperature_and_power(self.device) if self.device is not None else {}
        with self._lock:
            now, steps = time.monotonic(), self._times.get("step")
            self._beats += 1
            return {
                "pid": self.pid,
                "beat": self._beats,
                "at": now,
                "seconds": now - self.began,
                "doing": self._doing,
                "since": now - self._since,
                "step": self._step,
                "saved_step": self._saved,
                "last_step_seconds": steps[-1] if steps else None,
                "usual": {what: median(times) for what, times in self._times.items()},
                "card": card,
            }


def read_heartbeat(run: Run) -> Heartbeat | None:
    """What the worker of `run` wrote last; None where there is nothing that can be read."""
    values: Any = read_json(run.dir / FILE)
    try:
        return Heartbeat(**{name: values[name] for name in Heartbeat.__dataclass_fields__})
    except (KeyError, TypeError):
        return None


def hanging(run: Run, now: float | None = None) -> str | None:
    """Why `run` may hang, in sentences for a person that say what to do; None where it works, or is not at work.

    `now` is a moment of the system's monotonic clock (`time.monotonic()`), not of the one on the wall.
    """
    status = run.status()
    if not status.active or status.pid is None:
        return None
    heartbeat = read_heartbeat(run)
    saved = _saved(heartbeat)
    if _is_paused(status.pid, status.pid_started):
        how = f" Continue it with: kill -CONT {status.pid}. Or end it now{saved}."
        return f"The worker was paused from outside and does nothing until it is continued.{how}"
    if heartbeat is None or heartbeat.pid != status.pid:  # it has only been started
        return None
    moment = time.monotonic() if now is None else now
    silent = heartbeat.silent(moment)
    if silent > SILENT_SECONDS:
        return f"The worker has not responded for {_brief(silent)}. It may be stuck; you can end it now{saved}."
    return _too_long(heartbeat, silent, saved)


def _too_long(heartbeat: Heartbeat, silent: float, saved: str) -> str | None:
    unknown, least = LIMITS.get(heartbeat.doing, (None, 0.0))
    usual = heartbeat.usual.get(heartbeat.doing)
    limit = unknown if usual is None else max(least, TIMES_THE_USUAL * usual)
    spent = heartbeat.since + silent
    if unknown is None or limit is None or spent <= limit:
        return None
    last = heartbeat.last_step_seconds if heartbeat.doing == "step" else usual
    before = "" if last is None else f"; the last one took {_brief(last)}"
    nothing = _NOTHING_FOR[heartbeat.doing].format(time=_brief(spent))
    return f"{nothing}{before}. It may be stuck; you can end it now{saved}."


@dataclass(frozen=True)
class Stopping:
    """A run that has been asked to stop: since when, in seconds since the epoch, and how long it may yet take."""

    since: float
    limit_seconds: float
    left_seconds: float


def stopping(run: Run, now: float | None = None) -> Stopping | None:
    """How the stop of `run` stands at the moment `now` of the monotonic clock; None where it was not asked to stop."""
    request = run.asked()
    if request is None or request.action != "stop" or not run.status().active:
        return None
    moment = time.monotonic() if now is None else now
    limit = _stop_limit(read_heartbeat(run))
    return Stopping(request.time, limit, limit - (moment - request.at))


def _stop_limit(heartbeat: Heartbeat | None) -> float:
    """How long a stop may take, in seconds, before the run is ended: a minute more than what there is yet to do."""
    if heartbeat is None or heartbeat.doing not in TIMED:
        return STOP_SECONDS
    first = 0.0 if heartbeat.doing in heartbeat.usual else LIMITS[heartbeat.doing][1]
    return STOP_SECONDS + first + 2 * sum(heartbeat.usual.values())


def _saved(heartbeat: Heartbeat | None) -> str:
    if heartbeat is None or heartbeat.saved_step is None:
        return "; nothing has been saved yet"
    return f"; it can resume from its last checkpoint (step {heartbeat.saved_step:,})"


def _brief(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else show_duration(seconds).removesuffix(" 00 s")


def _is_paused(pid: int, started: float | None) -> bool:
    try:
        return is_alive(pid, started) and psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False
