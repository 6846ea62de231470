"""From a recipe to a queued run: everything that can be refused is refused here, before a worker starts."""

from __future__ import annotations

import os
from dataclasses import dataclass

from core.budget import Budget, read_budget
from core.data.formats import Conversations, recognise
from core.data.keep import find_dataset, keep
from core.data.read import read_rows
from core.data.samples import find_sample
from core.errors import RecipeError
from core.hardware import Device, device
from core.models import FoundModel, find_model
from core.recipe import Recipe
from core.runs.store import Run, create_run
from core.runs.supervisor import Supervisor
from core.workspace import Workspace


@dataclass(frozen=True)
class Checked:
    """What a recipe refers to, found and readable, and a budget that it does not contradict."""

    model: FoundModel
    data: Conversations
    device: Device
    budget: Budget


def check(recipe: Recipe) -> Checked:
    """Find and read all that `recipe` names. Raises ModelError, DataError or BudgetError, in one sentence."""
    model = find_model(recipe.model)
    refuse_length(recipe, model)
    path = find_dataset(recipe.data.path)
    data = recognise(read_rows(path), recipe.data.format, path.name)
    chosen = device()
    return Checked(model, data, chosen, read_budget(recipe, model, chosen))


def refuse_length(recipe: Recipe, model: FoundModel) -> None:
    """Refuse conversations longer than the model was made for. Raises RecipeError."""
    most = model.context_length
    if most is not None and recipe.data.max_length > most:
        raise RecipeError(
            f"data.max_length: {recipe.data.max_length:,} is not possible with {model.label}; allowed: 16 to {most:,}."
        )


def submit(recipe: Recipe, workspace: Workspace, supervisor: Supervisor) -> Run:
    """Check `recipe`, keep its dataset, make its run and queue it; it starts at once if the device is free.

    Raises NibbleError for anything that cannot work; then nothing has been written.
    """
    check(recipe)
    source = find_dataset(recipe.data.path)
    kept = keep(workspace, source)
    sample = find_sample(recipe.data.path)
    if sample is not None and not recipe.evaluation.prompts:
        recipe = recipe.model_copy(deep=True)
        recipe.evaluation.prompts = list(sample.prompts)
    if sample is None:
        recipe = recipe.model_copy(deep=True)
        recipe.data.path = str(source)
    folder = os.path.relpath(kept.path, workspace.runs / "run")
    run = create_run(workspace, recipe, {"file": folder, "sha256": kept.sha256, "name": kept.name})
    supervisor.advance()
    return run
