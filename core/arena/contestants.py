"""Which models meet in the arena, by their keys; a base is asked with its adapter's template and tokenizer."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePath

from core.errors import NibbleError
from core.runs.chat_models import ChatModel, find_chat_model, without_adapter
from core.workspace import Workspace

ITS_BASE = "its base"


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
