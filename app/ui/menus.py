"""What the menus offer: base models, datasets, and what there is to talk to."""

from pathlib import Path

from app.ui.html import date
from core.basemodel.find import model_choices
from core.data.samples import samples
from core.data.store import kept_datasets
from core.recipe import load_recipe, recipe_presets
from core.runs.chat_models import list_chat_models
from core.runs.find import list_runs
from core.workspace import Workspace

Choices = list[tuple[str, str]]


def models(workspace: Workspace) -> Choices:
    """Base models: presets, local folders, what the Hugging Face cache holds."""
    return [(choice.label, choice.value) for choice in model_choices(workspace)]


def datasets(workspace: Workspace) -> Choices:
    """The samples, then what was uploaded, newest first."""
    shipped = [(f"{sample.title} (sample)", sample.name) for sample in samples()]
    sample_files = {sample.path.name for sample in samples()}
    kept = [path for path in kept_datasets(workspace) if path.name not in sample_files]
    return shipped + [(_named(path, kept), str(path)) for path in kept]


def _named(path: Path, among: list[Path]) -> str:
    """An upload's name, with the start of its hash where two have the same."""
    twins = sum(other.name == path.name for other in among) > 1
    return f"{path.name} · {path.parent.name[:6]}" if twins else path.name


def recipes() -> Choices:
    """The recipes that ship, by what they call themselves."""
    return sorted((load_recipe(name).name or name, name) for name in recipe_presets())


def starts(workspace: Workspace) -> Choices:
    """What a run can start from: a fresh adapter, or one that there is, by the keys of core/runs/chat_models.py."""
    return [
        ("New adapter", ""),
        *((label, key) for label, key in chat_models(workspace) if not key.startswith("base:")),
    ]


def chat_models(workspace: Workspace) -> Choices:
    """Whom one can talk to, by the keys of core/runs/chat_models.py; runs also with when they were made."""
    made = {f"run:{run.id}": date(run.created) for run in list_runs(workspace)}
    return [
        (f"{model.label} · {made[model.key]}" if model.key in made else model.label, model.key)
        for model in list_chat_models(workspace)
    ]
