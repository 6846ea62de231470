"""Answers made ahead of the voting, in `workspace/arena/answers.jsonl`: what is there is not made again."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from core.arena.prompts import ArenaPrompt
from core.arena.votes import Book, Side
from core.generation.sampling import Sampling
from core.runs.chat_models import WEIGHTS, ChatModel
from core.workspace import Workspace


@dataclass(frozen=True)
class Answer:
    """One model's reply to one question. `key` stands for model, question and settings; `settings` hold the seed."""

    key: str
    side: Side
    prompt: ArenaPrompt
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """What two answers must have in common to be compared: the question, and how it was answered."""
        return json.dumps([self.prompt.messages, self.settings], sort_keys=True)


def key_of(model: ChatModel, prompt: ArenaPrompt, sampling: Sampling) -> str:
    """The key of an answer: another adapter under the same name, another setting or seed gives another."""
    parts = [model.key, _mark(model), prompt.messages, asdict(sampling)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _mark(model: ChatModel) -> list[Any]:
    """What tells an adapter from a later one in the same place, without reading it: it may be large."""
    settings = [model.revision, model.quantization, model.data, str(model.tokenizer)]
    if model.adapter is None:
        return settings
    try:
        found = (model.adapter / WEIGHTS).stat()
    except OSError:
        return settings
    return [*settings, found.st_size, found.st_mtime_ns]


class AnswerBook(Book[Answer]):
    """The answers of one workspace. Lines that are none are passed over: those answers are made again."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace.arena / "answers.jsonl", "reply", _answer)

    def add(self, answer: Answer) -> None:
        """Keep one more answer. Raises NibbleError where it cannot be written."""
        self.append([asdict(answer)])


def _answer(row: dict[str, Any]) -> Answer | None:
    try:
        side, prompt = row["side"], row["prompt"]
        messages = tuple((str(role), str(content)) for role, content in prompt["messages"])
        return Answer(
            key=str(row["key"]),
            side=Side(str(side["voice"]), str(side["label"]), str(side["text"]), int(side["tokens"])),
            prompt=ArenaPrompt(messages, str(prompt["source"])),
            settings=dict(row["settings"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
