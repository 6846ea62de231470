"""Jobs of minutes or hours beside the matches: answers made in advance, and an automatic judge. Threads of the server.

What they have done is in files as soon as it is done, so whatever ends them, they go on where they were.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.arena import html as arena_html
from app.arena.match import MatchSession, prompts_of
from app.ui.background_job import BackgroundJob
from app.ui.html import note_box
from app.ui.sampling import sampling_of
from core.arena.batch_answers import SEED, Bulk
from core.arena.judge import Bias, Judge, Judging
from core.arena.match import contestants, waiting
from core.errors import NibbleError
from core.system.keep_awake import KeptAwake
from core.workspace import read_json, write_json


@dataclass
class ArenaJob(BackgroundJob):
    """One thing at a time. `remark` says what came of it."""

    work: Bulk | Judging | None = None
    remark: str = ""

    def begin(self, prepare: Callable[[], Bulk | Judging], changed: Callable[[], None]) -> None:
        """Make the work ready and do it; nothing while another is under way."""
        if self.busy:
            return
        self.work, self.remark = None, "Getting ready…"

        def run(stopping: threading.Event) -> None:
            self.work = prepare()
            self.remark = ""
            if stopping.is_set():
                self.work.stop()
            with KeptAwake(lambda message: None):
                self.work.run(changed)
            self.remark = "Stopped. It will continue from here." if self.work.stopping else "Done."

        self.start(run)

    def stop(self) -> None:
        """End it as soon as it can be, also where it is only getting ready."""
        super().stop()
        if self.work is not None:
            self.work.stop()


@dataclass
class ArenaJobs:
    """The two jobs of a workspace."""

    matches: MatchSession
    preparing: ArenaJob = field(default_factory=ArenaJob)
    judging: ArenaJob = field(default_factory=ArenaJob)

    @property
    def _file(self) -> Any:
        return self.matches.workspace.arena / "preparing.json"

    def prepare(self, keys: Sequence[str], source: str, system: str, settings: dict[str, Any]) -> None:
        """Begin to make answers in advance. Raises NibbleError where that cannot be."""
        matches = self.matches
        models, sampling = contestants(matches.workspace, keys), replace(sampling_of(settings), seed=SEED)

        def ready() -> Bulk:
            prompts = prompts_of(matches.workspace, source, system)
            return Bulk(matches.answers, matches.chat, models, prompts, sampling)

        write_json(self._file, {"voices": list(keys), "source": source, "system": system, "settings": settings})
        self.preparing.begin(ready, self._answered)

    def _answered(self) -> None:
        work = self.preparing.work
        if isinstance(work, Bulk) and work.done + len(work.failed) == work.total:
            self._file.unlink(missing_ok=True)

    def judge(self, url: str, model: str, key: str) -> None:
        """Begin to judge the prepared answers. Raises NibbleError where that cannot be."""
        matches, judge = self.matches, Judge(url, model, key)
        pairs = waiting(matches.answers.refresh(), matches.votes.refresh(), judge.name)
        if not pairs:
            raise NibbleError("There are no prepared replies left for this judge. Prepare some above first.")
        self.judging.begin(lambda: Judging(matches.votes, judge, pairs), lambda: None)

    def stop(self) -> None:
        """End both."""
        self.preparing.stop()
        self.judging.stop()

    def preparing_html(self) -> str:
        """How far the preparing is."""
        job, work = self.preparing, self.preparing.work
        if not isinstance(work, Bulk):
            return arena_html.job(job.busy, 0, 0, "", job.remark, job.error) or self._left_over()
        remark = job.remark
        if work.failed:
            remark = f"{remark} {len(work.failed)} failed: {work.failed[-1]}".strip()
        return arena_html.job(job.busy, work.done, work.total, "replies are ready", remark, job.error)

    def _left_over(self) -> str:
        """What to say of a job that was under way when the server ended; empty where none was."""
        if self.preparing.busy or not isinstance(read_json(self._file), dict):
            return ""
        return note_box(
            "Preparing was interrupted when Nibble closed. Press the button to continue; finished replies are kept."
        )

    def judging_html(self, bias: Bias | None) -> str:
        """How far the judge is, and how much it leans towards a place."""
        job, work = self.judging, self.judging.work
        remark = job.remark
        if isinstance(work, Judging) and work.unread:
            remark = f"{remark} {work.unread} without a readable verdict.".strip()
        done, total = (work.done, len(work.pairs)) if isinstance(work, Judging) else (0, 0)
        html = arena_html.job(job.busy, done, total, "pairs judged in both orders", remark, job.error)
        return html + (arena_html.lean(bias) if bias is not None and bias.pairs else "")
