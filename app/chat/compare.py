"""One question, several voices: their replies one after another, drawn with the same seed, kept over a reload."""

from __future__ import annotations

import secrets
import threading
import traceback
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from app.chat.conversation import note
from app.ui.form import flat
from core.chat.client import ChatClient
from core.errors import NibbleError
from core.generation.sampling import Sampling
from core.runs.chat_models import ChatModel, find_chat_model
from core.runs.find import find_run
from core.workspace import Workspace, read_json, write_json

FEWEST, MOST = 2, 4
OWNER = "side by side"
# What says nothing about how an adapter came to be what it is.
LEFT_OUT = ("version", "name", "budget", "checkpoint.", "evaluation.")


@dataclass
class Column:
    """One voice and what it says."""

    key: str
    label: str
    text: str = ""
    note: str = ""
    error: str = ""


@dataclass
class SideBySide:
    """The question, the columns, and the work on them. `version` grows with every change."""

    workspace: Workspace
    client: ChatClient
    prompt: str = ""
    seed: int = 0
    columns: list[Column] = field(default_factory=list)
    differs: list[tuple[str, list[str]]] = field(default_factory=list)
    state: str = ""
    error: str = ""
    version: int = 0
    _worker: threading.Thread | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, workspace: Workspace, client: ChatClient) -> SideBySide:
        """The last comparison, as it was left."""
        kept = read_json(workspace.state / "compare.json") or {}
        try:
            columns = [Column(**column) for column in kept.get("columns", [])]
            differs = [(key, values) for key, values in kept.get("differs", [])]
            return cls(workspace, client, kept.get("prompt", ""), kept.get("seed", 0), columns, differs)
        except (TypeError, ValueError, AttributeError):  # of another version, or damaged
            return cls(workspace, client)

    @property
    def busy(self) -> bool:
        """Whether replies are being made."""
        return self._worker is not None and self._worker.is_alive()

    def ask(self, prompt: str, keys: list[str], sampling: Sampling, system: str) -> None:
        """Have `prompt` answered by each of the voices. What cannot be is refused in a sentence."""
        with self._turn:
            self.error = self._refusal(prompt, keys)
            self.version += 1
            if self.error:
                return
            try:
                voices = [find_chat_model(self.workspace, key) for key in keys]
            except NibbleError as error:
                self.error = str(error)
                return
            self.prompt = prompt.strip()
            self.seed = secrets.randbelow(2**31) if sampling.seed is None else sampling.seed
            self.columns = [Column(voice.key, voice.label) for voice in voices]
            self.differs = _differences(self.workspace, voices)
            self._stop = threading.Event()
            work = (voices, replace(sampling, seed=self.seed), system, self._stop)
            self._worker = threading.Thread(target=self._answer, args=work, daemon=True)
            self._worker.start()

    def stop(self) -> None:
        """End the reply under way, and do not begin those that wait."""
        self._stop.set()
        self.client.stop(OWNER)

    def _refusal(self, prompt: str, keys: list[str]) -> str:
        if self.busy:
            return "It is still answering. Press Stop to end that first."
        if not prompt.strip():
            return "The question is empty. Write one, then press Compare."
        if not FEWEST <= len(set(keys)) == len(keys) <= MOST:
            return f"Choose {FEWEST} to {MOST} different voices to compare."
        return ""

    def _answer(self, voices: list[ChatModel], sampling: Sampling, system: str, stop: threading.Event) -> None:
        pairs = list(zip(voices, self.columns, strict=True))
        # Voices over one base one after another: each base is loaded once.
        for voice, column in sorted(pairs, key=lambda pair: (pair[0].model, str(pair[0].quantization))):
            if stop.is_set():
                break
            try:
                self._say(voice, column, sampling, system, stop)
            except NibbleError as error:
                column.error = "" if stop.is_set() else str(error)
            except Exception as error:  # a thread's last word: else the column would stay empty in silence
                traceback.print_exc()
                column.error = f"This should not have happened ({type(error).__name__}: {error}). Please report it."
        self._show("")
        kept: dict[str, Any] = {"prompt": self.prompt, "seed": self.seed, "differs": self.differs}
        write_json(self.workspace.state / "compare.json", {**kept, "columns": [asdict(each) for each in self.columns]})

    def _say(self, voice: ChatModel, column: Column, sampling: Sampling, system: str, stop: threading.Event) -> None:
        self._show(f"{voice.label} is asked…")
        asked = [{"role": "user", "content": self.prompt}]
        how: dict[str, Any] = {"system": system, "progress": self._show, "owner": OWNER}
        for piece in self.client.stream(voice, asked, sampling, **how):
            if stop.is_set() and not piece.done:
                self.client.stop(OWNER)
            column.text, column.note = piece.text, note(voice, piece)
            self.version += 1

    def _show(self, state: str) -> None:
        self.state = state
        self.version += 1


def _differences(workspace: Workspace, voices: list[ChatModel]) -> list[tuple[str, list[str]]]:
    """(setting, its value in each column) where adapters' settings are not all the same; '–' where there is none."""
    settings = [_settings(workspace, voice) for voice in voices]
    rows = []
    for key in dict.fromkeys(key for each in settings for key in each):
        values = [each.get(key, "–") for each in settings]
        if len({value for value in values if value != "–"}) > 1 or key in ("model", "step") and len(set(values)) > 1:
            rows.append((key, values))
    return rows


def _settings(workspace: Workspace, voice: ChatModel) -> dict[str, str]:
    own = {"model": voice.model, "quantization.bits": str(voice.quantization["bits"]), "adapter": "none"}
    own |= {"adapter": voice.label} if voice.adapter is not None else {}
    if not voice.key.startswith("run:"):
        return own
    name, _, part = voice.key.partition(":")[2].partition("/")
    values = flat(find_run(workspace, name).recipe())
    known = {key: str(value) for key, value in values.items() if not key.startswith(LEFT_OUT) and value is not None}
    return {**own, **known, "step": part.rpartition("/")[2] or "last"}
