"""Checks names and paths that people type against what they may reach: models, datasets, recipes, chat models."""

import re

from core.basemodel.find import model_presets
from core.data.samples import find_sample
from core.errors import NibbleError
from core.recipe import Recipe, load_recipe, recipe_presets
from core.untrusted.paths import Reach
from core.workspace import Workspace

# An id or the start of one, 'last', and which part of the run speaks.
_RUN_KEY = re.compile(r"[a-z0-9-]{1,64}(/best|/checkpoint/[0-9]{1,9})?", re.ASCII)


def typed_model(reach: Reach, given: str) -> str:
    """A base model: a preset, a Hugging Face id, or a folder that `reach` allows. Raises NibbleError."""
    return given if given in model_presets() else reach.name_or_path(given, "The base model")


def typed_dataset(reach: Reach, given: str) -> str:
    """A dataset: a sample, a Hugging Face id, or a file or folder that `reach` allows. Raises NibbleError."""
    return given if find_sample(given) is not None else reach.name_or_path(given, "The dataset")


def typed_recipe(reach: Reach, workspace: Workspace, recipe: Recipe) -> Recipe:
    """`recipe` with whole paths, all of them allowed. Raises NibbleError."""
    allowed = recipe.model_copy(deep=True)
    model, dataset = typed_model(reach, recipe.model), typed_dataset(reach, recipe.data.path)
    if model != recipe.model:  # what is put is counted as said, and a recipe may leave its model to an adapter
        allowed.model = model
    if dataset != recipe.data.path:
        allowed.data.path = dataset
    if recipe.lora.start_from is not None:
        typed_chat_model(reach, workspace, recipe.lora.start_from)
    return allowed


def load_typed(reach: Reach, workspace: Workspace, source: str, changes: list[str] | None = None) -> Recipe:
    """The recipe that `source` names, a preset or a YAML file, with `changes` made to it, and its paths allowed."""
    file = source if source in recipe_presets() else reach.name_or_path(source, "The recipe")
    return typed_recipe(reach, workspace, load_recipe(file, changes))


def typed_chat_model(reach: Reach, workspace: Workspace, key: str) -> str:
    """The key of somebody to talk to: base:<model>, run:<id>, adapter:<name or folder>. Raises NibbleError."""
    kind, _, name = str(key).strip().partition(":")
    if kind == "run" and not _RUN_KEY.fullmatch(name):
        raise NibbleError(f"There is no run {name[:80]!r}. Choose one from the list.")
    if kind == "base":
        return f"base:{typed_model(reach, name)}"
    adapters = {folder.name for folder in workspace.adapters.iterdir() if not folder.name.startswith(".")}
    if kind == "adapter" and name not in adapters:
        return f"adapter:{reach.name_or_path(name, 'The adapter')}"
    return str(key).strip()
