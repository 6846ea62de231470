"""Who can meet in the arena: voices by their keys, a base asked in the way that its adapters are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

from core.errors import NibbleError
from core.runs.chat_models import ChatModel, find_chat_model, without_adapter
from core.workspace import Workspace

ITS_BASE = "its base"


def contestants(workspace: Workspace, keys: Sequence[str]) -> list[ChatModel]:
    """The voices with these keys; `ITS_BASE` stands for the base under the first. Each of them once.

    A base alone is asked with the template and tokenizer of the first adapter here that stands over it: else the two
    would not be asked the same. Raises NibbleError: fewer than two, or one that is not there.
    """
    found: dict[str, ChatModel] = {}
    for key in keys:
        voice = _base_under(list(found.values())) if key == ITS_BASE else find_chat_model(workspace, key)
        found.setdefault(voice.key, voice)
    if len(found) < 2:
        raise NibbleError("That is only one model. Choose a second one, or the base model.")
    return [_asked_alike(voice, list(found.values())) for voice in found.values()]


def _base_under(chosen: Sequence[ChatModel]) -> ChatModel:
    adapted = next((voice for voice in chosen if voice.adapter is not None), None)
    if adapted is None:
        raise NibbleError("A base model has no base model of its own. Choose a run, or another model to compare with.")
    return without_adapter(adapted)


def _asked_alike(voice: ChatModel, all_of_them: Sequence[ChatModel]) -> ChatModel:
    if voice.adapter is not None:
        return voice
    called = f"{PurePath(voice.model).name} (base model)"
    over = next((each for each in all_of_them if each.adapter is not None and each.model == voice.model), None)
    return replace(voice if over is None else without_adapter(over), key=voice.key, label=called)
