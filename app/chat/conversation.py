"""The conversation: kept by the server, so that a reload, a closed tab or a restart loses nothing.

The reply is made in a thread of its own; the page only looks at how far it has come. One conversation a workspace.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from app.ui.background_job import BackgroundJob
from core.chat.client import USUAL_LOAD_SECONDS, ChatClient
from core.errors import RunError
from core.generation.reply import PartialReply
from core.generation.sampling import Sampling
from core.runs.chat_models import ChatModel, find_chat_model, without_adapter
from core.workspace import Workspace, read_json, write_json

IDLE_SECONDS = 15 * 60
OWNER = "talk"
NOBODY = "There is no model to chat with yet. Train an adapter first, or choose a base model."
STILL_ANSWERING = "The model is still replying. Press Stop first."
EMPTY_MESSAGE = "The message is empty. Write something, then press Send."
ENDINGS = {"asked": "stopped", "length": "stopped at the length limit", "context": "the context is full"}


@dataclass
class Turn:
    """One message. `note` says who spoke and how fast; `used` of the `of` tokens that fit were full after it."""

    role: str
    content: str
    note: str = ""
    used: int = 0
    of: int = 0


@dataclass(frozen=True)
class ReplySettings:
    """How to reply: by the adapter or the base under it, how tokens are drawn, what is said beforehand."""

    answers_from: Literal["adapter", "base"]
    sampling: Sampling
    system: str


@dataclass
class ChatConversation(BackgroundJob):
    """The turns so far and the reply under way. A model is loaded, or a reply made, one after another."""

    workspace: Workspace
    client: ChatClient
    turns: list[Turn] = field(default_factory=list)
    used: float = field(default_factory=time.monotonic)
    answering: bool = False

    @classmethod
    def open(cls, workspace: Workspace, client: ChatClient) -> ChatConversation:
        """The conversation as it was left."""
        kept = read_json(workspace.state / "talk.json") or []
        try:
            turns = [Turn(**turn) for turn in kept]
        except TypeError:  # of another version, or damaged
            turns = []
        return cls(workspace, client, turns)

    @property
    def context(self) -> tuple[int, int]:
        """(tokens of the context that are full, tokens that fit); zeros while nothing is known of it."""
        last = next((turn for turn in reversed(self.turns) if turn.role == "assistant"), None)
        return (last.used, last.of) if last is not None else (0, 0)

    def say(self, message: str, key: str, settings: ReplySettings) -> None:
        """Add the person's message and have it answered, after the loading that may be under way.

        An empty one, and one that comes while another is answered, is refused in a sentence, and nothing changes.
        """
        with self._lock:
            if self._may_ask(message):
                self.turns.append(Turn("user", message.strip()))
                self._reply(key, settings)

    def again(self, key: str, settings: ReplySettings) -> None:
        """Take the last reply back and have the same message answered anew."""
        with self._lock:
            if self.answering or not self.turns:
                return
            if self.turns[-1].role == "assistant":
                self.turns.pop()
            self._reply(key, settings)

    def edit(self, index: int, message: str, key: str, settings: ReplySettings) -> None:
        """Put `message` in the place of the person's turn `index`, forget what came after, and have it answered."""
        with self._lock:
            if self._may_ask(message):
                self.turns[index:] = [Turn("user", message.strip())]
                self._reply(key, settings)

    def undo(self) -> str:
        """Take the last message and its reply back. Returns the message, for the person to change it."""
        with self._lock:
            asked = [index for index, turn in enumerate(self.turns) if turn.role == "user"]
            if self.answering or not asked:
                return ""
            message = self.turns[asked[-1]].content
            del self.turns[asked[-1] :]
            self.error = ""
            self._keep()
            return message

    def load(self, key: str) -> None:
        """Load what there is to talk to, without saying anything yet."""
        if not self.busy:
            self.start(lambda stopping: self._load(key, stopping))

    def stop(self) -> None:
        """End the reply under way; what was said so far stays."""
        super().stop()
        self.client.stop(OWNER)

    def clear(self) -> None:
        """Forget the conversation. What is loaded stays loaded, and a reply under way is no longer heard."""
        self.stop()
        with self._lock:
            self.turns, self.error, self.answering = [], "", False
            self._keep()

    def unload(self) -> None:
        """End the reply under way and the chat's process: its memory is free again."""
        self.stop()
        self.client.close()

    def rest(self) -> None:
        """Unload what nobody has talked to for a while: the memory is the person's.

        The endpoint and the Arena ask the same process, and count too.
        """
        idle = time.monotonic() - max(self.used, self.client.used)
        if self.client.loaded and not self.busy and not self.client.busy and idle > IDLE_SECONDS:
            self.unload()

    def messages(self) -> list[dict[str, str]]:
        """The conversation as models and datasets take it."""
        return [{"role": turn.role, "content": turn.content} for turn in self.turns]

    def ended(self) -> None:
        """The reply, or the loading, is over."""
        self.used, self.answering = time.monotonic(), False
        self._keep()

    def _may_ask(self, message: str) -> bool:
        """Whether `message` can be answered now; if not, it is said why."""
        refusal = STILL_ANSWERING if self.answering else "" if message.strip() else EMPTY_MESSAGE
        if refusal:
            self.error = refusal
            self.version += 1
        return not refusal

    def _reply(self, key: str, settings: ReplySettings) -> None:
        self.answering = True
        self._keep()
        turns = self.turns  # a conversation that is cleared meanwhile begins another list
        self.start(lambda stopping: self._answer(turns, key, settings, stopping), self.state)

    def _load(self, key: str, stopping: threading.Event) -> None:
        model = self._model(key)
        self.client.load(model, self._progress(model, stopping), OWNER)

    def _model(self, key: str) -> ChatModel:
        if not key:
            raise RunError(NOBODY)
        return find_chat_model(self.workspace, key)

    def _progress(self, model: ChatModel, stopping: threading.Event) -> Callable[[str], None]:
        """Shows what is loaded, and passes on a stop that came before the process had been asked."""
        starts = f"Loading {model.label}… This takes about {USUAL_LOAD_SECONDS} seconds the first time."
        self.show("Replying…" if self.client.loaded else starts)

        def show(line: str) -> None:
            self.show(line)
            if stopping.is_set():
                self.client.stop(OWNER)

        return show

    def _answer(self, turns: list[Turn], key: str, settings: ReplySettings, stopping: threading.Event) -> None:
        model = self._model(key)
        model = without_adapter(model) if settings.answers_from == "base" else model
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        how: dict[str, Any] = {"system": settings.system, "progress": self._progress(model, stopping), "owner": OWNER}
        turn: Turn | None = None
        for reply in self.client.stream(model, messages, settings.sampling, **how):
            if stopping.is_set() and not reply.done:
                self.client.stop(OWNER)
            if turn is None:
                if reply.done and not reply.tokens:  # stopped before it began
                    return
                self.state, turn = "Replying…", Turn("assistant", "")
                turns.append(turn)
            turn.content, turn.note = reply.text, note(model, reply)
            turn.used, turn.of = reply.prompt_tokens + reply.tokens, reply.context_tokens
            self.version += 1

    def _keep(self) -> None:
        write_json(self.workspace.state / "talk.json", [asdict(turn) for turn in self.turns])
        self.version += 1


def note(model: ChatModel, reply: PartialReply) -> str:
    """Who spoke and how fast: 'pirate · 12 tokens · 31.0 tokens/s · first after 0.2 s'."""
    who = model.label if model.adapter is not None else "base"
    parts = [who, f"{reply.tokens} tokens", f"{reply.tokens_per_second:.1f} tokens/s"]
    parts += [f"first after {reply.first_token_seconds:.1f} s"] if reply.tokens else []
    return " · ".join([*parts, *([ENDINGS[reply.ends]] if reply.ends in ENDINGS else [])])
