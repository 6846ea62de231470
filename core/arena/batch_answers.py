"""Answers made in advance, for voting later: every model on every question, as long as it takes.

It can be stopped at any moment and begun again; what is there is not made again.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from core.arena.answers import Answer, AnswerBook, key_of
from core.arena.match import CutShort, MatchStopped, ReplySource, stream_reply
from core.arena.prompts import ArenaPrompt
from core.arena.votes import Side
from core.errors import NibbleError
from core.generation.sampling import Sampling
from core.runs.chat_models import ChatModel

# So many failures in a row mean that not the question is at fault.
MOST_FAILURES = 3
TRIES = 3
SEED = 0


@dataclass
class Bulk:
    """One round of preparing. `done` counts what is there, `failed` holds why an answer could not be had."""

    book: AnswerBook
    source: ReplySource
    models: Sequence[ChatModel]
    prompts: Sequence[ArenaPrompt]
    sampling: Sampling
    done: int = 0
    failed: list[str] = field(default_factory=list)
    stopping: bool = False

    @property
    def total(self) -> int:
        """How many answers there will be."""
        return len(self.models) * len(self.prompts)

    def run(self, changed: Callable[[], None] = lambda: None) -> None:
        """Make what is missing, one model after the other, so that a base is loaded once.

        Raises NibbleError where a model fails at several questions in a row.
        """
        in_a_row = 0
        there = {answer.key for answer in self.book.refresh()}
        for model in self.models:
            for prompt in self.prompts:
                key = key_of(model, prompt, self.sampling)
                try:
                    if key not in there:
                        self._make(key, model, prompt)
                    self.done += 1
                    in_a_row = 0
                except MatchStopped:
                    return
                except NibbleError as error:
                    self.failed.append(str(error))
                    in_a_row += 1
                    if in_a_row >= MOST_FAILURES:
                        raise
                changed()

    def stop(self) -> None:
        """End after the token under way; the answer that is not whole is not kept."""
        self.stopping = True

    def _make(self, key: str, model: ChatModel, prompt: ArenaPrompt) -> None:
        for attempt in range(1, TRIES + 1):
            try:
                for reply in stream_reply(self.source, model, prompt, self.sampling, lambda: self.stopping):
                    if reply.done:
                        side = Side(model.key, model.label, reply.text, reply.tokens)
                        self.book.add(Answer(key, side, prompt, asdict(self.sampling)))
                return
            except CutShort:
                if attempt == TRIES:
                    raise
