"""The chat's process: holds one base and adapters over it, and replies. When it ends, its memory is free.

python -m core.chat.worker      (started by ChatClient, speaks JSON lines)
"""

import gc
import os
import threading
import time
import traceback
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from core.basemodel.code_consent import trust_only
from core.basemodel.find import FoundModel, find_model
from core.basemodel.pin import change_of, read_pin, stamp_of
from core.errors import ModelError, NibbleError
from core.recipe import QuantizationSettings
from core.runs.chat_models import ChatModel
from core.runs.device_lock import DeviceHeld, Hold, hold, holder
from core.system.child_process import Answer, Request, serve
from core.system.hardware import claim_card, device
from core.workspace import Workspace

GIVE_WAY_SECONDS = 1.0


class Chat:
    """What is loaded: one base, the adapters over it, and how each is prompted."""

    def __init__(self) -> None:
        self._stops: set[int] = set()  # the numbers of requests that are to stop, also of ones not begun yet
        self._asked_for: set[tuple[Any, ...]] = set()  # what has been found to mean the base that is loaded
        self._base: tuple[Any, ...] | None = None
        self._folder: Path | None = None
        self._stamp: tuple[Any, ...] = ()  # of a base in a folder, whose files may be replaced by others
        self._adapters: Any = None
        self._prompts: Any = None
        self._hold: Hold | None = None
        self._beside: tuple[Workspace, str, str | None] | None = None  # the run that has the device instead
        self._busy = threading.Lock()
        self._refused = -GIVE_WAY_SECONDS  # when (time.monotonic) a request last was
        self._spoilt = False  # what is loaded is of no use, and only the process' end is sure to free it
        self._crowded = False  # memory ran out; the error that said so held on to some of it

    def interrupt(self, request: Request) -> bool:
        """Note a request to stop, which ends a reply at the next token. Returns whether it was one."""
        if request["op"] != "stop":
            return False
        self._stops.update(request["numbers"])
        return True

    def handle(self, request: Request) -> Iterator[Answer]:
        """Answer one request: `load` or `say`."""
        number = request["number"]
        with self._busy:  # what is in use is not given away
            try:
                if self._crowded:
                    self._crowded = False
                    _clean()
                trust_only(Workspace.open(request["workspace"]))
                chat_model = ChatModel.from_request(request["chat_model"])
                model = yield from self._ready(chat_model, request)
                if request["op"] == "say" and number not in self._stops:
                    yield from self._say(chat_model, model, request)
                else:
                    yield {"done": True}
            except BaseException:
                self._refused = time.monotonic()
                raise
            finally:
                self._stops.discard(number)

    def give_way(self) -> None:
        """End this process when a run waits for the device and no request is being answered. Runs in a thread."""
        while True:
            time.sleep(GIVE_WAY_SECONDS)
            with self._busy:
                if time.monotonic() - self._refused < GIVE_WAY_SECONDS:
                    continue  # why may not have been said yet
                try:
                    if not self._is_in_the_way():
                        continue
                except Exception:  # whatever it is, nobody else would give the device back
                    traceback.print_exc()
                self._release()
                os._exit(0)

    def _is_in_the_way(self) -> bool:
        """Whether a run waits for the device, or a new run has begun beside what is loaded."""
        if self._hold is not None:
            return self._hold.wanted() is not None
        if self._beside is None:
            return False
        workspace, label, run = self._beside
        at_it = holder(workspace)
        if at_it is None:  # the run has ended: from now on the device is the chat's, until it is asked for
            self._hold = _held(workspace, label)
            return False
        return at_it.kind == "run" and at_it.run != run

    def _ready(self, chat_model: ChatModel, request: Request) -> Generator[Answer, None, Any]:
        """The loaded model, with what is not loaded yet loaded first."""
        from core.chat.adapter_pool import AdapterLost
        from core.model.load import is_out_of_memory

        yield from self._have_base(chat_model, request)
        try:
            model = self._adapters.use(chat_model.adapter)
        except AdapterLost:
            self._spoilt = True
            raise
        except Exception as error:
            self._spoilt = is_out_of_memory(error)  # half of the adapter may be in the base by now
            self._no_memory(chat_model.label, error, request)
            raise
        self._prompts.of(chat_model, self._adapters.found)
        return model

    def _have_base(self, chat_model: ChatModel, request: Request) -> Iterator[Answer]:
        from core.chat.adapter_pool import Adapters
        from core.chat.memory_check import refuse_without_room
        from core.model.load import dtype_for, load_base
        from core.model.stored import Stores

        asked_for = (chat_model.model, chat_model.revision, *chat_model.quantization.items(), chat_model.pinned)
        stamp_now = stamp_of(self._folder) if self._folder is not None and self._stamp else ()
        if asked_for in self._asked_for and self._stamp == stamp_now:
            return
        found, settings = _base_of(chat_model), QuantizationSettings(**chat_model.quantization)
        yield from _held_to_its_run(chat_model, found)
        if self._base == _identity(found, settings):
            self._asked_for.add(asked_for)
            return
        found = yield from self._downloaded(found, request)
        self._forget()
        workspace = Workspace.open(request["workspace"])
        self._hold = _held(workspace, found.label)
        if self._hold is None:
            at_it = holder(workspace)
            self._beside = (workspace, found.label, at_it.run if at_it is not None else None)
        yield {"progress": f"Loading {found.label} in {settings.bits} bits…"}
        chosen = device()
        try:
            refuse_without_room(found, settings, dtype_for(chosen, found.model_type)[0].itemsize, chosen, workspace)
        except Exception as error:
            self._forget()
            self._spoilt = not isinstance(error, NibbleError)
            raise
        said: list[str] = []
        try:
            base = load_base(found, settings, chosen, stores=Stores(workspace.quantised, said.append))
            self._adapters = Adapters(base.eval(), found)
        except Exception as error:
            self._spoilt = True
            self._no_memory(found.label, error, request)
            raise
        self._base = _identity(found, settings)
        self._folder, self._stamp = found.folder, _stamp(found)
        self._asked_for.add(asked_for)
        yield from ({"progress": each} for each in said)

    def _downloaded(self, found: FoundModel, request: Request) -> Generator[Answer, None, FoundModel]:
        """The base, downloaded if it is not on this machine; a stop ends the download."""
        from core.basemodel.download import DownloadStopped, downloading, here
        from core.model.fit import refuse_misfit

        if found.folder is None:
            refuse_misfit(found)
        number = request["number"]
        try:
            for progress in downloading(found, lambda: number in self._stops):
                yield {"progress": progress.line()}
        except DownloadStopped:
            raise NibbleError(
                "The download was stopped. What was downloaded is kept, and the next download continues from there."
            ) from None
        return here(found)

    def _say(self, chat_model: ChatModel, model: Any, request: Request) -> Iterator[Answer]:
        from core.generation.generate import stream
        from core.generation.sampling import Sampling

        prompt, number = self._prompts.of(chat_model, self._adapters.found), request["number"]
        started = time.perf_counter()
        ids = prompt.ids(request["messages"], model, request.get("asked"))
        sampling = Sampling(**request["sampling"])
        try:
            for reply in stream(model, prompt.tokenizer, ids, sampling, lambda: number in self._stops, started):
                yield vars(reply)
        except Exception as error:
            self._no_memory(chat_model.label, error, request)
            raise

    def _no_memory(self, label: str, error: Exception, request: Request) -> None:
        """Where `error` is that memory ran out, drop what is not in use and raise ModelError; else return."""
        from core.chat.memory_check import no_room
        from core.model.load import is_out_of_memory
        from core.runs.queue import at_work

        if not is_out_of_memory(error):
            return
        self._crowded = True
        if self._adapters is not None:
            self._adapters.forget_others()
        _clean()
        raise no_room(label, device().free_bytes, at_work(Workspace.open(request["workspace"]))) from None

    def is_over(self) -> bool:
        """Whether what is loaded is unusable; if so, the device is released."""
        with self._busy:
            if self._spoilt:
                self._release()
            return self._spoilt

    def _release(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def _forget(self) -> None:
        """Drop the base and its adapters."""
        from core.chat.prompts import Prompts

        self._asked_for, self._base = set(), None
        self._adapters, self._prompts = None, Prompts()
        _clean()
        self._beside = None
        self._release()


def _base_of(chat_model: ChatModel) -> FoundModel:
    """The base. Raises ModelError, which says whose base it is that is missing."""
    try:
        return find_model(chat_model.model, chat_model.revision)
    except ModelError as error:
        if chat_model.adapter is None:
            raise
        raise ModelError(f"The base model of {chat_model.label} is missing. {error}") from None


def _held_to_its_run(chat_model: ChatModel, found: FoundModel) -> Iterator[Answer]:
    """Raise ModelError where the folder of a run's base no longer holds the base that the run was trained on."""
    pinned = read_pin(chat_model.pinned) if chat_model.pinned is not None and found.revision is None else None
    if pinned is None or found.folder is None:
        return
    if stamp_of(found.folder) != tuple((name, *entry["stamp"]) for name, entry in pinned.items()):
        yield {"progress": f"Comparing {found.label} with what {chat_model.label} was trained on…"}
    change = change_of(found.folder, pinned, lambda said: None)
    if change is not None:
        raise ModelError(change.sentence(f"{chat_model.label}, {found.label},"))


def _stamp(found: FoundModel) -> tuple[Any, ...]:
    return stamp_of(found.folder) if found.folder is not None and found.revision is None else ()


def _identity(found: FoundModel, settings: QuantizationSettings) -> tuple[Any, ...]:
    return found.source, found.revision, _stamp(found), tuple(settings.model_dump().items())


def _held(workspace: Workspace, label: str) -> Hold | None:
    """The device, or None while a run has it: then memory is checked next. Raises DeviceHeld for other holders."""
    try:
        return hold(workspace, "chat", label)
    except DeviceHeld:
        at_it = holder(workspace)
        if at_it is not None and at_it.kind != "run":
            raise
        return None


def _clean() -> None:
    """Free the memory that torch keeps in its cache."""
    from accelerate.utils.memory import clear_device_cache

    gc.collect()
    clear_device_cache()


if __name__ == "__main__":
    claim_card()
    chat = Chat()
    threading.Thread(target=chat.give_way, daemon=True).start()
    raise SystemExit(serve(chat.handle, chat.interrupt, chat.is_over))
