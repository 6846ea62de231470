"""The conversation: kept by the server, so that a reload, a closed tab or a restart loses nothing.

The reply is made in a thread of its own; the page only looks at how far it has come. One conversation a workspace.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from core.chat.client import USUAL_LOAD_SECONDS, ChatClient
from core.errors import NibbleError, RunError
from core.generation.reply import PartialReply
from core.generation.sampling import Sampling
from core.runs.chat_models import ChatModel, find_chat_model, without_adapter
from core.text.library_errors import telling_line
from core.workspace import Workspace, read_json, write_json

IDLE_SECONDS = 15 * 60
OWNER = "talk"
NOBODY = "There is nothing to talk to yet. Train an adapter first, or choose a base model."
STILL_ANSWERING = "It is still answering. Press Stop to end that first."
EMPTY_MESSAGE = "The message is empty. Write something, then press Send."
ENDINGS = {"asked": "stopped", "length": "ended by the length limit", "context": "the context is full"}


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

    voice: Literal["adapter", "base"]
    sampling: Sampling
    system: str


@dataclass
class ChatConversation:
    """The turns so far and the reply under way. `version` grows with every change."""

    workspace: Workspace
    client: ChatClient
    turns: list[Turn] = field(default_factory=list)
    state: str = ""
    error: str = ""
    version: int = 0
    used: float = field(default_factory=time.monotonic)
    answering: bool = False
    _worker: threading.Thread | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _turn: threading.Lock = field(default_factory=threading.Lock)

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
    def busy(self) -> bool:
        """Whether it loads or replies."""
        return self._worker is not None and self._worker.is_alive()

    @property
    def context(self) -> tuple[int, int]:
        """(tokens of the context that are full, tokens that fit); zeros while nothing is known of it."""
        last = next((turn for turn in reversed(self.turns) if turn.role == "assistant"), None)
        return (last.used, last.of) if last is not None else (0, 0)

    def say(self, message: str, key: str, manner: ReplySettings) -> None:
        """Add the person's message and have it answered, after the loading that may be under way.

        An empty one, and one that comes while another is answered, is refused in a sentence, and nothing changes.
        """
        with self._turn:
            if not message.strip():
                self._refuse(EMPTY_MESSAGE)
            elif self.answering:
                self._refuse(STILL_ANSWERING)
            else:
                self.turns.append(Turn("user", message.strip()))
                self._reply(key, manner)

    def again(self, key: str, manner: ReplySettings) -> None:
        """Take the last reply back and have the same message answered anew."""
        with self._turn:
            if self.answering or not self.turns:
                return
            if self.turns[-1].role == "assistant":
                self.turns.pop()
            self._reply(key, manner)

    def edit(self, index: int, message: str, key: str, manner: ReplySettings) -> None:
        """Put `message` in the place of the person's turn `index`, forget what came after, and have it answered."""
        with self._turn:
            if self.answering or not message.strip():
                self._refuse(STILL_ANSWERING if self.answering else EMPTY_MESSAGE)
                return
            self.turns[index:] = [Turn("user", message.strip())]
            self._reply(key, manner)

    def undo(self) -> str:
        """Take the last message and its reply back. Returns the message, for the person to change it."""
        with self._turn:
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
            self._start(self._load, key)

    def stop(self) -> None:
        """End the reply under way; what was said so far stays."""
        self._stop.set()
        self.client.stop(OWNER)

    def clear(self) -> None:
        """Forget the conversation. What is loaded stays loaded, and a reply under way is no longer heard."""
        self.stop()
        with self._turn:
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

    def _refuse(self, sentence: str) -> None:
        self.error = sentence
        self.version += 1

    def _reply(self, key: str, manner: ReplySettings) -> None:
        self.answering = True
        self._keep()
        self._start(self._answer, key, manner)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        self.error, self._stop = "", threading.Event()
        work_on = (self._worker, self.turns, self._stop, work, *arguments)
        self._worker = threading.Thread(target=self._guarded, args=work_on, daemon=True)
        self._worker.start()

    def _guarded(
        self,
        before: threading.Thread | None,
        turns: list[Turn],
        stop: threading.Event,
        work: Callable[..., None],
        *arguments: Any,
    ) -> None:
        if before is not None:
            before.join()
        said = ""
        try:
            work(turns, stop, *arguments)
        except NibbleError as error:
            said = "" if stop.is_set() else str(error)
        except Exception as error:  # a thread's last word: else the page would wait for a reply in silence
            traceback.print_exc()
            said = f"This should not have happened ({telling_line(error, kind=True)}). Please report it."
        with self._turn:
            self.state, self.used = "", time.monotonic()
            if self.turns is turns:  # not cleared meanwhile
                self.error = said
                self.answering = self.answering and work != self._answer
            self._keep()

    def _load(self, turns: list[Turn], stop: threading.Event, key: str) -> None:
        voice = self._voice(key)
        self.client.load(voice, self._progress(voice, stop), OWNER)

    def _voice(self, key: str) -> ChatModel:
        if not key:
            raise RunError(NOBODY)
        return find_chat_model(self.workspace, key)

    def _progress(self, voice: ChatModel, stop: threading.Event) -> Callable[[str], None]:
        """Shows what is loaded, and passes on a stop that came before the process had been asked."""
        starts = f"Loading {voice.label}… This takes about {USUAL_LOAD_SECONDS} seconds the first time."
        self._show("Answering…" if self.client.loaded else starts)

        def show(line: str) -> None:
            self._show(line)
            if stop.is_set():
                self.client.stop(OWNER)

        return show

    def _answer(self, turns: list[Turn], stop: threading.Event, key: str, manner: ReplySettings) -> None:
        voice = self._voice(key)
        voice = without_adapter(voice) if manner.voice == "base" else voice
        progress = self._progress(voice, stop)
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        reply: Turn | None = None
        how: dict[str, Any] = {"system": manner.system, "progress": progress, "owner": OWNER}
        for piece in self.client.stream(voice, messages, manner.sampling, **how):
            if stop.is_set() and not piece.done:
                self.client.stop(OWNER)
            if reply is None:
                if piece.done and not piece.tokens:  # stopped before it began
                    return
                self.state, reply = "Answering…", Turn("assistant", "")
                turns.append(reply)
            reply.content, reply.note = piece.text, note(voice, piece)
            reply.used, reply.of = piece.prompt_tokens + piece.tokens, piece.context_tokens
            self.version += 1

    def _show(self, state: str) -> None:
        self.state = state
        self.version += 1

    def _keep(self) -> None:
        write_json(self.workspace.state / "talk.json", [asdict(turn) for turn in self.turns])
        self.version += 1


def note(voice: ChatModel, piece: PartialReply) -> str:
    """Who spoke and how fast: 'pirate · 12 tokens · 31.0 tokens/s · first after 0.2 s'."""
    who = voice.label if voice.adapter is not None else "base"
    parts = [who, f"{piece.tokens} tokens", f"{piece.tokens_per_second:.1f} tokens/s"]
    parts += [f"first after {piece.first_token_seconds:.1f} s"] if piece.tokens else []
    return " · ".join([*parts, *([ENDINGS[piece.ends]] if piece.ends in ENDINGS else [])])
