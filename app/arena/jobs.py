"""Jobs of minutes or hours beside the matches: answers made in advance, and an automatic judge. Threads of the server.

What they have done is in files as soon as it is done, so whatever ends them, they go on where they were.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.arena import html as arena_html
from app.arena.match import MatchSession, prompts_of, sampling_of, unforeseen
from core.arena.batch_answers import SEED, Bulk
from core.arena.contestants import contestants
from core.arena.judge import Bias, Judge, Judging
from core.arena.match import waiting
from core.errors import NibbleError
from core.system.keep_awake import KeptAwake
from core.workspace import read_json, write_json


@dataclass
class ArenaJob:
    """One thing at a time, in a thread. `remark` says what came of it, `error` why it ended early."""

    work: Bulk | Judging | None = None
    remark: str = ""
    error: str = ""
    stopping: bool = False
    _thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether it is at work."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, prepare: Callable[[], Bulk | Judging], changed: Callable[[], None]) -> None:
        """Make the work ready and do it; nothing while another is under way."""
        if self.running:
            return
        self.work, self.error, self.remark, self.stopping = None, "", "Getting ready…", False

        def run() -> None:
            try:
                self.work = prepare()
                self.remark = ""
                if self.stopping:
                    self.work.stop()
                with KeptAwake(lambda message: None):
                    self.work.run(changed)
                self.remark = "Stopped; it goes on from here." if self.work.stopping else "Done."
            except NibbleError as error:
                self.error = str(error)
            except Exception as error:  # a thread's last word: else the page would wait in silence
                self.error = unforeseen(error)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it as soon as it can be, also where it is only getting ready."""
        self.stopping = True
        if self.work is not None:
            self.work.stop()


@dataclass
class ArenaJobs:
    """The two jobs of a workspace."""

    desk: MatchSession
    preparing: ArenaJob = field(default_factory=ArenaJob)
    judging: ArenaJob = field(default_factory=ArenaJob)

    @property
    def _file(self) -> Any:
        return self.desk.workspace.arena / "preparing.json"

    def unfinished(self) -> dict[str, Any] | None:
        """What was being prepared when the server ended; None where nothing was."""
        kept = read_json(self._file)
        return kept if isinstance(kept, dict) and not self.preparing.running else None

    def prepare(self, keys: Sequence[str], source: str, system: str, settings: dict[str, Any]) -> None:
        """Begin to make answers in advance. Raises NibbleError where that cannot be."""
        desk = self.desk
        voices, sampling = contestants(desk.workspace, keys), sampling_of(settings, SEED)

        def ready() -> Bulk:
            return Bulk(desk.answers, desk.speaker, voices, prompts_of(desk.workspace, source, system), sampling)

        write_json(self._file, {"voices": list(keys), "source": source, "system": system, "settings": settings})
        self.preparing.start(ready, self._answered)

    def _answered(self) -> None:
        self.desk.in_use()
        work = self.preparing.work
        if isinstance(work, Bulk) and work.done + len(work.failed) == work.total:
            self._file.unlink(missing_ok=True)

    def judge(self, url: str, model: str, key: str) -> None:
        """Begin to judge the prepared answers. Raises NibbleError where that cannot be."""
        desk, judge = self.desk, Judge(url, model, key)
        pairs = waiting(desk.answers.refresh().values(), desk.votes.refresh(), judge.name)
        if not pairs:
            raise NibbleError("No prepared answers wait for this judge. Prepare some above first.")
        self.judging.start(lambda: Judging(desk.votes, judge, pairs), lambda: None)

    def stop(self) -> None:
        """End both."""
        self.preparing.stop()
        self.judging.stop()

    def preparing_html(self) -> str:
        """How far the preparing is."""
        job, work = self.preparing, self.preparing.work
        if not isinstance(work, Bulk):
            return arena_html.job(job.running, 0, 0, "", job.remark, job.error) or self._left_over()
        remark = job.remark
        if work.failed:
            remark = f"{remark} {len(work.failed)} could not be had: {work.failed[-1]}".strip()
        return arena_html.job(job.running, work.done, work.total, "answers are there", remark, job.error)

    def _left_over(self) -> str:
        if self.unfinished() is None:
            return ""
        said = "Preparing was interrupted when Nibble ended. Press the button: what is there is not made again."
        return arena_html.job(False, 0, 0, "", said, "")

    def judging_html(self, bias: Bias | None) -> str:
        """How far the judge is, and how much it leans towards a place."""
        job, work = self.judging, self.judging.work
        remark = job.remark
        if isinstance(work, Judging) and work.unread:
            remark = f"{remark} {work.unread} without a verdict that can be read.".strip()
        done, total = (work.done, len(work.pairs)) if isinstance(work, Judging) else (0, 0)
        html = arena_html.job(job.running, done, total, "pairs judged in both orders", remark, job.error)
        return html + (arena_html.lean(bias) if bias is not None and bias.pairs else "")
