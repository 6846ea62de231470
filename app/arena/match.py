"""The match under way: asked, answered in a thread of its own, voted on. One a workspace; the page only looks."""

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.ui.background_job import BackgroundJob
from core.arena.answers import AnswerBook
from core.arena.held_out import held_out
from core.arena.match import Match, ReplySource, contestants, new_match, prepared_match, waiting
from core.arena.prompts import ArenaPrompt, shipped
from core.arena.votes import Choice, VoteBook
from core.errors import NibbleError
from core.generation.sampling import Sampling
from core.runs.find import list_runs
from core.runs.store import Run
from core.workspace import Workspace

LOOKS_EVERY = 3.0  # seconds
TYPED, PREPARED, SHIPPED, RUN = "typed", "prepared", "shipped", "run"


@dataclass
class MatchSession(BackgroundJob):
    """The match on the screen and the work on it; `chat` generates the replies."""

    workspace: Workspace
    chat: ReplySource
    votes: VoteBook
    answers: AnswerBook
    chance: random.Random = field(default_factory=random.Random)
    match: Match | None = None
    _trained: tuple[float, list[Run]] = (float("-inf"), [])
    _asked: set[ArenaPrompt] = field(default_factory=set)

    def ask(self, source: str, question: str, system: str, keys: Sequence[str], sampling: Sampling) -> None:
        """Begin the next match; what is asked comes from `source`. Raises NibbleError where it cannot be one."""
        if self.busy:
            raise NibbleError("The models are still replying. Press Stop first.")
        if source == PREPARED:
            self._take_prepared()
            return
        if source == TYPED and not question.strip():
            raise NibbleError("The prompt is empty. Write one, or choose a prompt set.")
        first, second = contestants(self.workspace, keys)[:2]
        self.match = None

        def work(stopping: threading.Event) -> None:
            prompt = self._prompt(source, question.strip(), system)
            self.match = new_match(prompt, first, second, sampling, self.chance)
            self.show("The models are loading; one that is not on this machine is downloaded first.")
            self.match.play(self.chat, lambda: self.show(""), stopping.is_set)

        self.start(work, "Choosing a prompt…" if source != TYPED else "The models are loading…")

    def vote(self, choice: Choice) -> None:
        """Keep the vote on the present match. Raises NibbleError where there is nothing to vote on."""
        if self.match is None:
            raise NibbleError("There is no pair to vote on. Send a prompt first.")
        vote = self.match.judged(choice)
        try:
            self.votes.add([vote])
        except NibbleError:
            self.match.vote = None
            raise
        self.version += 1

    def waiting(self) -> int:
        """How many pairs of prepared answers wait for a person's vote."""
        return len(waiting(self.answers.refresh(), self.votes.refresh()))

    def trained(self) -> list[Run]:
        """The runs with an adapter, newest first, as of a moment ago: every page asks every second."""
        if time.monotonic() - self._trained[0] > LOOKS_EVERY:
            self._trained = (time.monotonic(), [run for run in list_runs(self.workspace) if run.has_adapter])
        return self._trained[1]

    def _take_prepared(self) -> None:
        pairs = waiting(self.answers.refresh(), self.votes.refresh())
        if not pairs:
            raise NibbleError("There are no prepared replies left to vote on. Prepare some below, or send a prompt.")
        self.match, self.error = prepared_match(*self.chance.choice(pairs), self.chance), ""
        self.version += 1

    def _prompt(self, source: str, question: str, system: str) -> ArenaPrompt:
        """The next question: one that was not asked yet, as long as there is one."""
        if source == TYPED:
            return ArenaPrompt.of(question, system=system)
        found = prompts_of(self.workspace, source, system)
        fresh = [prompt for prompt in found if prompt not in self._asked]
        if not fresh:
            self._asked.difference_update(found)
        chosen = self.chance.choice(fresh or found)
        self._asked.add(chosen)
        return chosen


def prompts_of(workspace: Workspace, source: str, system: str = "") -> list[ArenaPrompt]:
    """The questions of a source: shipped, shipped:<category>, run:<id>. Raises NibbleError where there are none."""
    kind, _, name = source.partition(":")
    if kind == RUN:
        return held_out(workspace, name)
    found = shipped(name or None)
    return [ArenaPrompt.of(each.text, each.source, system) for each in found]
