"""From a recipe to a queued run: everything that can be refused is refused here, before a worker starts."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from core.basemodel.code_consent import require_agreed
from core.basemodel.find import FoundModel, find_model
from core.data.dataset import load
from core.data.locate import locate
from core.data.samples import find_sample
from core.data.store import keep
from core.errors import RecipeError
from core.launch.start_from import bring_along, take_over
from core.memory.budget import read_budget
from core.model.attention import refuse_attention
from core.recipe import Recipe
from core.runs.create import create_run
from core.runs.device_free import device_for_a_run
from core.runs.store import Run
from core.runs.supervisor import Supervisor
from core.system.hardware import device
from core.train.ranks import refuse_devices
from core.workspace import Workspace, as_path


def check(recipe: Recipe, workspace: Workspace, machines: int = 1) -> FoundModel:
    """The model that `recipe` names, found, and its budget read. Raises ModelError, RecipeError, BudgetError.

    Of several `machines` this one need not be like the others: what it has does not count then.
    """
    model = find_model(recipe.model)
    refuse_length(recipe, model)
    if machines == 1:
        refuse_devices(recipe)
        refuse_attention(recipe.train.attention, device().kind)
        read_budget(recipe, model, device_for_a_run(workspace))
    return model


def refuse_length(recipe: Recipe, model: FoundModel) -> None:
    """Refuse conversations longer than the model was made for. Raises RecipeError."""
    most = model.context_length
    if most is not None and recipe.data.max_length > most:
        raise RecipeError(
            f"data.max_length: {recipe.data.max_length:,} is not possible with {model.label}; allowed: 16 to {most:,}."
        )


def submit(recipe: Recipe, workspace: Workspace, supervisor: Supervisor, source: Path | None = None) -> Run:
    """Prepare a run and queue it; it starts at once if the device is free. Arguments and errors as for `prepare`."""
    run = prepare(recipe, workspace, source)
    supervisor.advance()
    return run


def prepare(
    recipe: Recipe, workspace: Workspace, source: Path | None = None, state: str = "queued", machines: int = 1
) -> Run:
    """Check `recipe`, keep its dataset, and make its run, in `state`, for so many `machines`.

    `source` is where a check that was made elsewhere has found the data: then it is not read here.
    Raises NibbleError for anything that cannot work; then nothing has been written.
    """
    recipe, start = take_over(recipe, workspace)
    require_agreed(workspace, check(recipe, workspace, machines))
    if source is None:
        source = locate(recipe.data, workspace)
        load(source, recipe.data)
    kept = keep(workspace, source)
    recipe = recipe.model_copy(deep=True)
    sample = find_sample(recipe.data.path)
    if sample is not None and not recipe.evaluation.prompts:
        recipe.evaluation.prompts = list(sample.prompts)
    if sample is None and as_path(recipe.data.path) is not None:
        recipe.data.path = str(source)
    folder = os.path.relpath(kept.path, workspace.runs / "run")
    dataset = {"file": folder, "sha256": kept.sha256, "name": kept.name}
    return create_run(workspace, recipe, dataset, state, partial(bring_along, start) if start else None)
