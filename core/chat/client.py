"""The parent's end of the chat: loads, streams and stops, without importing torch."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from core.data.conversation import Message
from core.generation.reply import PartialReply
from core.generation.sampling import Sampling
from core.runs.chat_models import ChatModel
from core.system.child_process import Child
from core.workspace import Workspace

# How long a first load usually takes: the imports of torch and transformers, measured on 2 cores.
USUAL_LOAD_SECONDS = 12


class ChatClient:
    """One chat process: one base at a time, and adapters that are swapped over it. Replies are made one by one."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._child = Child("core.chat.worker", workspace.state / "chat.log", "The chat")
        self._numbers = itertools.count(1)
        self._open: dict[int, str] = {}
        self._loaded: ChatModel | None = None
        self.used = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether any request is waiting or being answered."""
        return bool(self._open)

    @property
    def loaded(self) -> str | None:
        """The label of the model that is loaded, or None."""
        return self._loaded.label if self._loaded is not None and self._child.alive else None

    def load(self, chat_model: ChatModel, progress: Callable[[str], None] = lambda line: None, owner: str = "") -> None:
        """Load the model's base, unless it is there, and its adapter over it.

        A base that is not on this machine is downloaded first; `progress` gets a line for a person several times a
        second meanwhile, and `stop` ends it. Raises NibbleError: no such model, of another base, not enough memory.
        """
        for answer in self._ask("load", chat_model, owner):
            if "progress" in answer:
                progress(answer["progress"])

    def stream(
        self,
        chat_model: ChatModel,
        messages: list[Message],
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        system: str = "",
        progress: Callable[[str], None] = lambda line: None,
        owner: str = "",
        asked: Mapping[str, Any] | None = None,
    ) -> Iterator[PartialReply]:
        """Reply to `messages` as `chat_model`, which is loaded first, in parts; closing the iterator ends the reply.

        `system` is put before the messages; `owner` is who may `stop` it; `asked` are
        variables for the chat template. Raises NibbleError, and AskError where a setting of the request is why.
        """
        head: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
        request = {"messages": head + messages, "sampling": asdict(sampling), "asked": dict(asked or {})}
        for answer in self._ask("say", chat_model, owner, **request):
            if "progress" in answer:
                progress(answer["progress"])
            elif "text" in answer:
                yield PartialReply(**{**answer, "ids": tuple(answer["ids"])})

    def _ask(self, op: str, chat_model: ChatModel, owner: str, **more: Any) -> Iterator[dict[str, Any]]:
        number = next(self._numbers)
        request = {"op": op, "number": number, "workspace": str(self._workspace.path), **more}
        self._open[number] = owner
        try:
            yield from self._child.ask({**request, "chat_model": chat_model.as_request()})
            self._loaded = chat_model
        except GeneratorExit:
            self._child.tell({"op": "stop", "numbers": [number]})
            raise
        finally:
            del self._open[number]
            self.used = time.monotonic()

    def stop(self, owner: str = "") -> None:
        """Stop all replies of `owner`, within a token; those of others go on."""
        mine = [number for number, asked_by in list(self._open.items()) if asked_by == owner]
        self._child.tell({"op": "stop", "numbers": mine})

    def close(self) -> None:
        """End the process; its memory is free again."""
        self._child.close()
        self._loaded = None
