"""From a recipe to a queued run: everything that can be refused is refused here, before a worker starts."""

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
from core.launch.start_from import copy_adapter, take_over
from core.memory.budget import Budget, read_budget
from core.model.attention import refuse_attention
from core.recipe import Recipe
from core.runs.create import create_run
from core.runs.device_lock import device_for_a_run
from core.runs.store import Run
from core.runs.supervisor import Supervisor
from core.system.hardware import device
from core.train.ranks import refuse_devices
from core.workspace import Workspace, as_path


def refuse(recipe: Recipe, model: FoundModel, workspace: Workspace, machines: int = 1) -> Budget | None:
    """All that a run of `recipe` over `model` is refused for before it starts, its data aside. Imports no torch.

    Asked by the check before the start and by the start itself. Returns the budget as it was read; None for several
    `machines`, since this one need not be like the others. Raises CodeNotAgreed, RecipeError or BudgetError.
    """
    require_agreed(workspace, model)
    most = model.context_length
    if most is not None and recipe.data.max_length > most:
        raise RecipeError(
            f"data.max_length: {recipe.data.max_length:,} is not possible with {model.label}; allowed: 16 to {most:,}."
        )
    if machines > 1:
        return None
    refuse_devices(recipe)
    here = device()
    refuse_attention(recipe.train.attention, here.kind)
    if recipe.train.streamed_layers and here.kind == "mps":
        raise RecipeError("train.streamed_layers: Apple's GPU cannot stream layers. Leave it empty.")
    return read_budget(recipe, model, device_for_a_run(workspace))


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
    refuse(recipe, find_model(recipe.model), workspace, machines)
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
    return create_run(workspace, recipe, dataset, state, partial(copy_adapter, start) if start else None)
