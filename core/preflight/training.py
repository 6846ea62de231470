"""What a recipe means for its dataset's report on this machine: its steps, the model's limits, the pace of training."""

from core.basemodel.find import FoundModel
from core.data.check.training import Training
from core.preflight.pace import pace_of
from core.recipe import Recipe
from core.system.hardware import device
from core.workspace import Workspace, read_json


def training_for(recipe: Recipe, workspace: Workspace, found: FoundModel) -> Training:
    """What a recipe means for its report on this machine; `found` is its model."""
    from core.model.vocabulary import embedding_rows  # torch, which whoever has the tokenizer has too

    rules = recipe.train
    return Training(
        seed=rules.seed,
        effective_batch=rules.effective_batch,
        micro_batch=rules.micro_batch,
        device_kind=device().kind,
        pace=pace_of(workspace, recipe.model),
        longest=found.context_length,
        stops=_stops(found),
        embedding_rows=embedding_rows(found),
    )


def _stops(found: FoundModel) -> set[int]:
    """The tokens that end what this model generates, as its files say; empty where they do not."""
    settings = (read_json(found.folder / "generation_config.json") if found.folder else None) or {}
    own = settings.get("eos_token_id", found.config.get("eos_token_id"))
    return {token for token in (own if isinstance(own, list) else [own]) if isinstance(token, int)}
