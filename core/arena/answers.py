"""Answers made ahead of the voting, in `workspace/arena/answers.jsonl`: what is there is not made again."""

import hashlib
import json
import threading
from dataclasses import asdict, dataclass, field
from typing import Any

from core.arena.prompts import ArenaPrompt
from core.arena.votes import Side, append
from core.errors import NibbleError
from core.generation.sampling import Sampling
from core.runs.chat_models import WEIGHTS, ChatModel
from core.runs.tail import Tail
from core.workspace import Workspace


@dataclass(frozen=True)
class Answer:
    """What one voice said to one question. `key` names voice, question and settings; `settings` hold the seed."""

    key: str
    side: Side
    prompt: ArenaPrompt
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """What two answers must have in common to be compared: the question, and how it was answered."""
        return json.dumps([self.prompt.messages, self.settings], sort_keys=True)


def key_of(voice: ChatModel, prompt: ArenaPrompt, sampling: Sampling) -> str:
    """The key of an answer: another adapter under the same name, another setting or seed gives another."""
    parts = [voice.key, _mark(voice), prompt.messages, asdict(sampling)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _mark(voice: ChatModel) -> list[Any]:
    """What tells an adapter from a later one in the same place, without reading it: it may be large."""
    asked = [voice.revision, voice.quantization, voice.data, str(voice.tokenizer)]
    if voice.adapter is None:
        return asked
    try:
        found = (voice.adapter / WEIGHTS).stat()
    except OSError:
        return asked
    return [*asked, found.st_size, found.st_mtime_ns]


class AnswerBook:
    """The answers of one workspace. `refresh` reads what was appended, by whomever."""

    def __init__(self, workspace: Workspace) -> None:
        self.path = workspace.arena / "answers.jsonl"
        self._tail = Tail(self.path)
        self._answers: dict[str, Answer] = {}
        self._lock = threading.Lock()

    def refresh(self) -> dict[str, Answer]:
        """All answers by key, the oldest first. Lines that are none are passed over: they are made again."""
        with self._lock:
            rows = self._tail.read()
            if self._tail.restarts:  # somebody replaced the file: all of it is read anew
                self._tail = Tail(self.path)
                rows = self._tail.read()
                self._answers = {}
            for answer in map(_answer, rows):
                if answer is not None:
                    self._answers[answer.key] = answer
            return dict(self._answers)

    def add(self, answer: Answer) -> None:
        """Keep one more answer. Raises NibbleError where it cannot be written."""
        line = json.dumps(asdict(answer), ensure_ascii=False) + "\n"
        try:
            append(self.path, line.encode("utf-8", "replace"))
        except OSError as error:
            raise NibbleError(f"Could not save the reply to {self.path}: {error.strerror or error}.") from None


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
