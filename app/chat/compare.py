"""One question, several models: their replies one after another, drawn with the same seed, kept over a reload."""

from __future__ import annotations

import secrets
import threading
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from app.chat.conversation import note
from app.ui.background_job import BackgroundJob
from app.ui.form import flat
from app.ui.html import unforeseen
from core.chat.client import ChatClient
from core.errors import NibbleError, RunError
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
    """One model and what it says."""

    key: str
    label: str
    text: str = ""
    note: str = ""
    error: str = ""


@dataclass
class Comparison(BackgroundJob):
    """The question, the columns, and the work on them."""

    workspace: Workspace
    client: ChatClient
    prompt: str = ""
    seed: int = 0
    columns: list[Column] = field(default_factory=list)
    differs: list[tuple[str, list[str]]] = field(default_factory=list)

    @classmethod
    def open(cls, workspace: Workspace, client: ChatClient) -> Comparison:
        """The last comparison, as it was left."""
        kept = read_json(workspace.state / "compare.json") or {}
        try:
            columns = [Column(**column) for column in kept.get("columns", [])]
            differs = [(key, values) for key, values in kept.get("differs", [])]
            return cls(workspace, client, kept.get("prompt", ""), kept.get("seed", 0), columns, differs)
        except (TypeError, ValueError, AttributeError):  # of another version, or damaged
            return cls(workspace, client)

    def ask(self, prompt: str, keys: list[str], sampling: Sampling, system: str) -> None:
        """Have `prompt` answered by each of the models. What cannot be is refused in a sentence."""
        with self._lock:
            try:
                self._refuse(prompt, keys)
                models = [find_chat_model(self.workspace, key) for key in keys]
            except NibbleError as error:
                self.error = str(error)
                self.version += 1
                return
            self.prompt = prompt.strip()
            self.seed = secrets.randbelow(2**31) if sampling.seed is None else sampling.seed
            self.columns = [Column(model.key, model.label) for model in models]
            self.differs = _differences(self.workspace, models)
            drawn = replace(sampling, seed=self.seed)
            self.start(lambda stopping: self._answer(models, drawn, system, stopping))

    def stop(self) -> None:
        """End the reply under way, and do not begin those that wait."""
        super().stop()
        self.client.stop(OWNER)

    def _refuse(self, prompt: str, keys: list[str]) -> None:
        if self.busy:
            raise RunError("The model is still replying. Press Stop first.")
        if not prompt.strip():
            raise RunError("The prompt is empty. Write one, then press Compare.")
        if not FEWEST <= len(set(keys)) == len(keys) <= MOST:
            raise RunError(f"Choose {FEWEST} to {MOST} different models to compare.")

    def _answer(self, models: list[ChatModel], sampling: Sampling, system: str, stopping: threading.Event) -> None:
        pairs = list(zip(models, self.columns, strict=True))
        # Models over one base one after another: each base is loaded once.
        for model, column in sorted(pairs, key=lambda pair: (pair[0].model, str(pair[0].quantization))):
            if stopping.is_set():
                break
            try:
                self._reply(model, column, sampling, system, stopping)
            except NibbleError as error:
                column.error = "" if stopping.is_set() else str(error)
            except Exception as error:  # the other columns are still asked
                column.error = unforeseen(error)
        kept: dict[str, Any] = {"prompt": self.prompt, "seed": self.seed, "differs": self.differs}
        write_json(self.workspace.state / "compare.json", {**kept, "columns": [asdict(each) for each in self.columns]})

    def _reply(
        self, model: ChatModel, column: Column, sampling: Sampling, system: str, stopping: threading.Event
    ) -> None:
        self.show(f"{model.label} is replying…")
        asked = [{"role": "user", "content": self.prompt}]
        how: dict[str, Any] = {"system": system, "progress": self.show, "owner": OWNER}
        for reply in self.client.stream(model, asked, sampling, **how):
            if stopping.is_set() and not reply.done:
                self.client.stop(OWNER)
            column.text, column.note = reply.text, note(model, reply)
            self.version += 1


def _differences(workspace: Workspace, models: list[ChatModel]) -> list[tuple[str, list[str]]]:
    """(setting, its value in each column) where adapters' settings are not all the same; '–' where there is none."""
    settings = [_settings(workspace, model) for model in models]
    rows = []
    for key in dict.fromkeys(key for each in settings for key in each):
        values = [each.get(key, "–") for each in settings]
        if len({value for value in values if value != "–"}) > 1 or key in ("model", "step") and len(set(values)) > 1:
            rows.append((key, values))
    return rows


def _settings(workspace: Workspace, model: ChatModel) -> dict[str, str]:
    own = {"model": model.model, "quantization.bits": str(model.quantization["bits"]), "adapter": "none"}
    own |= {"adapter": model.label} if model.adapter is not None else {}
    if not model.key.startswith("run:"):
        return own
    name, _, part = model.key.partition(":")[2].partition("/")
    values = flat(find_run(workspace, name).recipe())
    known = {key: str(value) for key, value in values.items() if not key.startswith(LEFT_OUT) and value is not None}
    return {**own, **known, "step": part.rpartition("/")[2] or "last"}
