"""Work in a thread of the server: it goes on when the page is closed, and says how far it is."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from app.ui import html as ui_html
from app.ui.updates import Updates
from core.errors import NibbleError

LOOKS_A_SECOND = 12


@dataclass
class BackgroundJob:
    """One piece of work at a time. `state` is what it does now, `error` why it ended early, with its `details`.

    `result` is what came of the last that ended well, as HTML. `version` grows with every change; at the last one it
    is no longer `busy`. Whoever begins something, or changes what `ended` changes, holds `_lock`.
    """

    busy: bool = field(default=False, init=False)
    state: str = field(default="", init=False)
    error: str = field(default="", init=False)
    details: str = field(default="", init=False)
    result: str = field(default="", init=False)
    version: int = field(default=0, init=False)
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)

    def start(self, work: Callable[[threading.Event], None], state: str = "") -> None:
        """Do `work`, once what was begun before has ended. The event that it gets is set when it is to stop."""
        with self._lock:
            self.error = self.details = ""
            self._stopping = threading.Event()
            arguments = (self._thread, self._stopping, work)
            self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
            self.busy = True
            self.show(state)
            self._thread.start()

    def stop(self) -> None:
        """Ask the work to end; what it has to say about that is not shown."""
        self._stopping.set()

    def abandon(self) -> None:
        """Ask the work to end, and no longer hear what comes of it."""
        with self._lock:
            self.stop()
            self._stopping = threading.Event()
            self.busy = False
            self.show("")

    def show(self, state: str) -> None:
        """Say what it does now."""
        self.state = state
        self.version += 1

    def html(self) -> str:
        """What it does, why it ended early or what came of it."""
        if self.state:
            return ui_html.busy(self.state)
        return ui_html.error_box(self.error, self.details) if self.error else self.result

    def ended(self) -> None:
        """For a subclass: what else changes at the end, under the lock. `error` is known by then."""

    def _run(
        self, before: threading.Thread | None, stopping: threading.Event, work: Callable[[threading.Event], None]
    ) -> None:
        if before is not None:
            before.join()
        error = details = ""
        try:
            work(stopping)
        except NibbleError as refusal:
            error = "" if stopping.is_set() else str(refusal)
        except Exception as fault:  # a thread has nobody above it who would tell the person
            error, details = ui_html.unforeseen(fault), ui_html.traceback_of(fault)
        with self._lock:
            if stopping is self._stopping:  # else something newer was begun
                self.state, self.error, self.details = "", error, details
                self.ended()
                self.busy = False
                self.version += 1


def follow(job: BackgroundJob, shown: Callable[[], Updates]) -> Iterator[Updates]:
    """What is `shown` of a job whenever it has come further, until it rests. It goes on when nobody follows."""
    version = -1
    while job.busy:
        if job.version != version:
            version = job.version
            yield shown()
        time.sleep(1 / LOOKS_A_SECOND)
    yield shown()
