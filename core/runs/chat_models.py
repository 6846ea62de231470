"""What one can chat with: a base alone, a run's adapter, its best, a checkpoint, an adapter from elsewhere.

Keys: `base:<model>`, `run:<id>`, `run:<id>/best`, `run:<id>/checkpoint/<step>`, and `adapter:<name>` for a folder in
`workspace/adapters` or `adapter:<path>` for one anywhere else. Imports no torch, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from core.basemodel.find import model_choices, model_presets
from core.basemodel.pin import FILE
from core.errors import NibbleError, RunError
from core.recipe import QuantizationSettings, Recipe
from core.runs.find import find_run, list_runs
from core.runs.manifest import BEST, MANIFEST, named_checkpoints
from core.runs.store import Run
from core.workspace import ROOT, Workspace, as_path, read_json

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_PATHS = ("adapter", "tokenizer", "pinned")
KINDS = "base:<model>, run:<id>, run:<id>/best, run:<id>/checkpoint/<step>, adapter:<name or folder>"


@dataclass(frozen=True)
class ChatModel:
    """A quantised base and the adapter over it, None for the base alone.

    `quantization` is as in a recipe. `tokenizer` is the folder with the tokenizer and template that the adapter was
    trained with; where a checkpoint holds none, `data` holds the recipe's settings for the template and for system
    prompts. `pinned` is the run's base.json, which identifies its base.
    """

    key: str
    label: str
    model: str
    revision: str | None
    quantization: dict[str, Any]
    adapter: Path | None
    tokenizer: Path | None = None
    data: dict[str, Any] = field(default_factory=dict)
    pinned: Path | None = None

    def as_request(self) -> dict[str, Any]:
        """JSON for the chat's process; `ChatModel.from_request` reads it."""
        return {**vars(self), **{name: str(path) if (path := getattr(self, name)) else None for name in _PATHS}}

    @classmethod
    def from_request(cls, values: dict[str, Any]) -> ChatModel:
        """What `as_request` gave."""
        return cls(**{**values, **{name: Path(values[name]) if values[name] else None for name in _PATHS}})


def list_chat_models(workspace: Workspace) -> list[ChatModel]:
    """All chat models: runs, newest first, each with its best and its checkpoints; other adapters; bases.

    Runs whose recipe cannot be read are left out.
    """
    found = [chat_model for run in list_runs(workspace) for chat_model in chat_models_of(run)]
    for folder in _adapter_folders(workspace):
        if _is_adapter(folder) and _base_of(folder):
            found.append(_of_folder(folder, folder.name))
    return found + [base_chat_model(choice.value, choice.label) for choice in model_choices(workspace)]


def find_chat_model(workspace: Workspace, key: str) -> ChatModel:
    """The chat model with this key; a run may be named as in the commands. Raises NibbleError where there is none."""
    kind, _, name = key.strip().partition(":")
    if kind == "base" and name:
        return base_chat_model(name)
    if kind == "run" and name:
        wanted, _, part = name.partition("/")
        return _part_of_run(find_run(workspace, wanted), part)
    if kind == "adapter" and name:
        return _outside(workspace, name)
    raise NibbleError(f"{key!r} is not a chat model. Choose one of: {KINDS}.")


def base_chat_model(model: str, label: str | None = None) -> ChatModel:
    """The base `model` alone, in NF4."""
    preset = model_presets().get(model)
    shown = preset.title.partition(" · ")[0] if preset else label or model
    return ChatModel(f"base:{model}", f"{shown} (base model)", model, None, _NF4, None)


def without_adapter(chat_model: ChatModel) -> ChatModel:
    """The base under `chat_model`, with the same tokenizer and template."""
    alone = base_chat_model(chat_model.model)
    return replace(chat_model, key=alone.key, label=alone.label, adapter=None)


_NF4: dict[str, Any] = QuantizationSettings().model_dump()


def chat_models_of(run: Run) -> Iterator[ChatModel]:
    """A run's chat models: its result, its best, its checkpoints, the newest first."""
    try:
        recipe = _recipe(run)
    except NibbleError:
        return
    if _is_adapter(run.adapter):
        yield _over(run, recipe, "", run.name, run.adapter)
    best = _best(run)
    if best is not None:
        step = (read_json(best / MANIFEST) or {}).get("step")
        yield _over(run, recipe, "/best", f"{run.name} · best, step {step}", best)
    for folder in _checkpoints(run):
        yield _over(run, recipe, *_names(run, folder), folder / "adapter")


def _names(run: Run, checkpoint: Path) -> tuple[str, str]:
    return f"/checkpoint/{checkpoint.name}", f"{run.name} · step {checkpoint.name}"


def _part_of_run(run: Run, part: str) -> ChatModel:
    recipe = _recipe(run)
    if not part:
        if not _is_adapter(run.adapter):
            kept = _checkpoints(run)
            instead = f" Its checkpoint of step {kept[0].name} can already be used." if kept else ""
            raise RunError(f"Run {run.id} has no adapter yet: it is {run.status().state}.{instead}")
        return _over(run, recipe, "", run.name, run.adapter)
    if part == "best":
        best = _best(run)
        if best is None:
            raise RunError(f"Run {run.id} has no best adapter: it was never evaluated. Choose the run itself.")
        return _over(run, recipe, "/best", f"{run.name} · best", best)
    kept = _checkpoints(run)
    folder = next((folder for folder in kept if part == f"checkpoint/{folder.name}"), None)
    if folder is None:
        steps = ", ".join(folder.name for folder in kept) or "none"
        raise RunError(f"Run {run.id} no longer has {part}: only the newest checkpoints are kept, currently {steps}.")
    return _over(run, recipe, *_names(run, folder), folder / "adapter")


def _over(run: Run, recipe: Recipe, part: str, label: str, adapter: Path) -> ChatModel:
    kept = ("template", "generation_prompt", "system")
    data = {name: getattr(recipe.data, name) for name in kept}
    return ChatModel(
        f"run:{run.id}{part}",
        label,
        recipe.model,
        run.base_revision(),
        recipe.quantization.model_dump(),
        adapter,
        adapter if _has_tokenizer(adapter) else None,
        data,
        run.dir / FILE,
    )


def _recipe(run: Run) -> Recipe:
    file = run.dir / "recipe.yaml"
    try:
        changed = file.stat().st_mtime_ns
    except OSError:
        changed = 0
    return _read_recipe(run, changed)


@cache  # a bounded one that is smaller than the menu is never of any use
def _read_recipe(run: Run, changed: int) -> Recipe:
    """A menu of many runs is opened often, and reading YAML takes milliseconds."""
    return run.recipe()


def _best(run: Run) -> Path | None:
    folder = run.dir / BEST
    return folder if (folder / MANIFEST).is_file() and _is_adapter(folder) else None


def _checkpoints(run: Run) -> list[Path]:
    """They are renamed into place whole; one that is going away has lost files."""
    named = named_checkpoints(run.dir / "checkpoints")
    return [folder for folder in named if (folder / MANIFEST).is_file() and _is_adapter(folder / "adapter")]


def _is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer_config.json").is_file()


def _adapter_folders(workspace: Workspace) -> list[Path]:
    folder = workspace.path / "adapters"
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.is_dir() and not path.name.startswith("."))


def _outside(workspace: Workspace, name: str) -> ChatModel:
    """An adapter that another tool made, by its name in the workspace or by its folder."""
    kept = next((folder for folder in _adapter_folders(workspace) if folder.name == name), None)
    folder = kept or as_path(name)
    if folder is None or not folder.is_dir():
        raise NibbleError(f"There is no adapter {name!r} in the workspace, and no folder of that name.")
    if not (folder / CONFIG).is_file():
        raise NibbleError(f"{folder.name} is not an adapter: it contains no {CONFIG}.")
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / PICKLED).is_file()
        why = f"only pickled weights ({PICKLED}), which can run any code when loaded" if pickled else "no weights"
        raise NibbleError(f"The adapter {folder.name} has {why}. Use a version with {WEIGHTS}.")
    if not _base_of(folder):
        raise NibbleError(f"The adapter {folder.name} does not name its base model in {CONFIG}.")
    return _of_folder(folder.resolve(), name if kept else str(folder.resolve()))


def _of_folder(folder: Path, name: str) -> ChatModel:
    config = read_json(folder / CONFIG)
    revision = config.get("revision") or None
    tokenizer = folder if _has_tokenizer(folder) else None
    return ChatModel(f"adapter:{name}", folder.name, _base_of(folder), revision, _NF4, folder, tokenizer)


def _base_of(folder: Path) -> str:
    """The base that an adapter's files name: a preset where it is one's folder, on this machine or another."""
    config = read_json(folder / CONFIG)
    named = str((config if isinstance(config, dict) else {}).get("base_model_name_or_path") or "")
    plain = named.replace("\\", "/").rstrip("/")
    for preset in model_presets().values():
        if plain.endswith(f"/{preset.path}") or as_path(named) == ROOT / preset.path:
            return preset.name
    return named
