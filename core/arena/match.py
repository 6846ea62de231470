"""A blind match: one question, two models in an order that chance decides, the names only after the vote."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import PurePath
from typing import Any, Protocol

from core.arena.answers import Answer
from core.arena.prompts import ArenaPrompt
from core.arena.votes import PERSON, Choice, Side, Vote
from core.data.conversation import Message
from core.errors import NibbleError
from core.generation.reply import PartialReply
from core.generation.sampling import Sampling
from core.runs.chat_models import ChatModel, find_chat_model, without_adapter
from core.workspace import Workspace

MOST_SEED = 2**31
ITS_BASE = "its base"


class ReplySource(Protocol):
    """What generates the replies: core.chat.client.ChatClient."""

    def stream(
        self, chat_model: ChatModel, messages: list[Message], sampling: Sampling, *, progress: Callable[[str], None]
    ) -> Iterator[PartialReply]:
        """The reply of `chat_model`, in parts; closing the iterator ends it. Raises NibbleError."""


class MatchStopped(NibbleError):
    """Somebody pressed Stop while a model was being loaded or replied."""


class CutShort(NibbleError):
    """A reply was ended by somebody else who talks to the same process, such as by Stop in the chat."""


def stream_reply(
    source: ReplySource, model: ChatModel, prompt: ArenaPrompt, sampling: Sampling, stopping: Callable[[], bool]
) -> Iterator[PartialReply]:
    """The reply of `model` to `prompt`. Raises MatchStopped as soon as `stopping()`, also while it loads; CutShort."""

    def look_up(line: str = "") -> None:
        if stopping():
            raise MatchStopped("Stopped.")

    look_up()
    messages: list[Message] = [{"role": role, "content": content} for role, content in prompt.messages]
    for reply in source.stream(model, messages, sampling, progress=look_up):
        look_up()
        if reply.ends == "asked":
            raise CutShort("The reply was stopped in the chat before it was complete. Send the prompt again.")
        yield reply


def contestants(workspace: Workspace, keys: Sequence[str]) -> list[ChatModel]:
    """The models with these keys; `ITS_BASE` stands for the base under the first. Each of them once.

    A base alone is asked with the template and tokenizer of the first adapter here that stands over it: else the two
    would not be asked the same. Raises NibbleError: fewer than two, or one that is not there.
    """
    found: dict[str, ChatModel] = {}
    for key in keys:
        model = _base_under(found.values()) if key == ITS_BASE else find_chat_model(workspace, key)
        found.setdefault(model.key, model)
    if len(found) < 2:
        raise NibbleError("That is only one model. Choose a second one, or the base model.")
    return [_asked_alike(model, found.values()) for model in found.values()]


def _base_under(chosen: Iterable[ChatModel]) -> ChatModel:
    adapted = next((model for model in chosen if model.adapter is not None), None)
    if adapted is None:
        raise NibbleError("A base model has no base model of its own. Choose a run, or another model to compare with.")
    return without_adapter(adapted)


def _asked_alike(model: ChatModel, all_of_them: Iterable[ChatModel]) -> ChatModel:
    if model.adapter is not None:
        return model
    label = f"{PurePath(model.model).name} (base model)"
    over = next((each for each in all_of_them if each.adapter is not None and each.model == model.model), None)
    return replace(model if over is None else without_adapter(over), key=model.key, label=label)


@dataclass
class Reply:
    """One side of a match as far as it has come."""

    side: Side
    done: bool = False


@dataclass
class Match:
    """One question and both replies. `models` reply left and right; None where the replies were made before."""

    prompt: ArenaPrompt
    left: Reply
    right: Reply
    settings: dict[str, Any]
    models: tuple[ChatModel, ChatModel] | None = None
    vote: Vote | None = None

    @property
    def ready(self) -> bool:
        """Whether both have answered, so that it can be voted on."""
        return self.left.done and self.right.done

    @property
    def same(self) -> bool:
        """Whether both say the same to the letter."""
        return self.ready and self.left.side.text == self.right.side.text

    def play(
        self,
        source: ReplySource,
        changed: Callable[[], None] = lambda: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Have both answer, the left one first, with the same settings and seed. Raises NibbleError, MatchStopped."""
        sampling = Sampling(**{**self.settings, "stop": tuple(self.settings["stop"])})
        for model, reply in zip(self.models or (), (self.left, self.right), strict=True):
            for part in stream_reply(source, model, self.prompt, sampling, stopping):
                reply.side, reply.done = replace(reply.side, text=part.text, tokens=part.tokens), part.done
                changed()

    def judged(self, winner: Choice, judge: str = PERSON) -> Vote:
        """The vote to keep. Raises NibbleError before both have answered, and where it was voted on already."""
        if not self.ready:
            raise NibbleError("Both replies must be complete before you can vote.")
        if self.vote is not None:
            raise NibbleError("You have already voted on this pair. Send the next prompt.")
        self.vote = Vote(
            left=self.left.side,
            right=self.right.side,
            winner=winner,
            judge=judge,
            prompt=self.prompt.text,
            source=self.prompt.source,
            settings=self.settings,
            seed=self.settings.get("seed"),
        )
        return self.vote


def new_match(
    prompt: ArenaPrompt, first: ChatModel, second: ChatModel, sampling: Sampling, chance: random.Random
) -> Match:
    """A match of two models, still to be played. A seed is drawn where none is set.

    Raises NibbleError: an empty question, a model against itself.
    """
    if not prompt.messages[-1][1].strip():
        raise NibbleError("The prompt is empty. Write one, or choose a prompt set.")
    if first.key == second.key:
        raise NibbleError("Both models are the same. Choose two different ones, such as a run and its base model.")
    if sampling.seed is None:
        sampling = replace(sampling, seed=chance.randrange(MOST_SEED))
    left, right = chance.sample([first, second], 2)
    sides = (Reply(Side(left.key, left.label)), Reply(Side(right.key, right.label)))
    return Match(prompt, *sides, asdict(sampling), (left, right))


def prepared_match(first: Answer, second: Answer, chance: random.Random) -> Match:
    """A match of two answers that were made before."""
    left, right = chance.sample([first, second], 2)
    return Match(first.prompt, Reply(left.side, done=True), Reply(right.side, done=True), first.settings)


def waiting(answers: Iterable[Answer], votes: Iterable[Vote], judge: str = PERSON) -> list[tuple[Answer, Answer]]:
    """The pairs of prepared answers to one question that `judge` has not voted on; of each model only the newest."""
    asked: dict[str, dict[str, Answer]] = {}
    for answer in answers:
        asked.setdefault(answer.asked, {})[answer.side.voice] = answer
    decided = {_pair(vote.prompt, vote.left, vote.right) for vote in votes if vote.judge == judge}
    pairs = [pair for by_model in asked.values() for pair in combinations(by_model.values(), 2)]
    return [pair for pair in pairs if _pair(pair[0].prompt.text, pair[0].side, pair[1].side) not in decided]


def _pair(question: str, one: Side, other: Side) -> tuple[str, frozenset[tuple[str, str]]]:
    return question, frozenset({(one.voice, one.text), (other.voice, other.text)})
