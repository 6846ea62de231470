"""What a recipe means for its dataset's report on this machine: its steps, the model's limits, the pace of training."""

from core.basemodel.find import FoundModel
from core.data.check.training import Pace, Training
from core.errors import NibbleError
from core.recipe import Recipe
from core.runs.find import list_runs
from core.system.hardware import device
from core.workspace import Workspace, read_json


def training_for(recipe: Recipe, workspace: Workspace, found: FoundModel) -> Training:
    """What a recipe means for its report on this machine; `found` is its model."""
    from core.model.vocabulary import embedding_rows  # torch, which whoever has the tokenizer has too

    rules = recipe.train
    settings = (read_json(found.folder / "generation_config.json") if found.folder else None) or {}
    stops = settings.get("eos_token_id", found.config.get("eos_token_id"))  # one, several, or None
    return Training(
        seed=rules.seed,
        effective_batch=rules.effective_batch,
        micro_batch=rules.micro_batch,
        device_kind=device().kind,
        pace=pace_of(workspace, recipe.model),
        longest=found.context_length,
        stops={token for token in (stops if isinstance(stops, list) else [stops]) if isinstance(token, int)},
        embedding_rows=embedding_rows(found),
    )


def pace_of(workspace: Workspace, model: str) -> Pace:
    """The pace of the newest finished run of `model`, as the recipe names it."""
    for run in list_runs(workspace):
        try:
            if run.status().state != "finished" or run.recipe().model != model:
                continue
        except NibbleError:
            continue
        speed = run.result().get("tokens_per_second")
        if isinstance(speed, (int, float)) and speed > 0:
            return Pace(float(speed), f"at the {speed:,.0f} tokens/s of the run {run.name!r}")
    return Pace(None, "no run of this model has finished yet, so its speed is unknown")
