"""Training an adapter further: which settings a run takes over from it, and which it refuses. Imports no torch.

The adapter keeps its rank, alpha, layers and base. What a recipe leaves open is taken from the adapter; what differs is
refused. The adapter is copied into the run's folder, so that the original may be deleted.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from core.basemodel.find import TEMPLATE_FILE, FoundModel, find_model
from core.basemodel.pin import FILE, change_of, read_pin
from core.basemodel.targets import wanted
from core.errors import ModelError, NibbleError, RecipeError
from core.recipe import Recipe, make_recipe
from core.runs.chat_models import CONFIG, WEIGHTS, ChatModel, find_chat_model
from core.runs.store import Run
from core.untrusted.template_marks import plain_template
from core.workspace import Workspace, read_json, write_json

SETTING = "lora.start_from"
ALLOWED = "allowed: adapter:<name of an imported adapter>, run:<id>, run:<id>/best, run:<id>/checkpoint/<step>"
_A = ".lora_A.weight"
# What a LoRA of PEFT's can have and ours cannot.
_UNKNOWN = (
    *("rank_pattern", "alpha_pattern", "lora_bias", "layer_replication", "trainable_token_indices"),
    *("target_parameters", "alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config", "megatron_config"),
)
_WORDS = {"all-linear": "all linear layers", "attention": "attention", "q_v": "queries and values"}
SHOWN = 12
_CHANGES_THE_BASE = ("pissa", "olora", "corda")


@dataclass(frozen=True)
class StartingAdapter:
    """An adapter to train further: where it is, and its settings by the recipe's dotted keys."""

    source: ChatModel
    folder: Path
    settings: dict[str, Any]

    def summary(self) -> str:
        """What it is, for a person: 'rank 8, alpha 16, on q_proj, v_proj'."""
        lora = self.settings
        targets = lora["lora.targets"]
        layers = _WORDS[targets] if isinstance(targets, str) else _shown(targets)
        kinds = [", DoRA"] * lora["lora.dora"] + [", rsLoRA"] * (lora["lora.scaling"] != "standard")
        return f"rank {lora['lora.rank']}, alpha {lora['lora.alpha']:g}, on {layers}{''.join(kinds)}"


def find_starting_adapter(key: str, workspace: Workspace) -> StartingAdapter:
    """The adapter that `key` names, something to chat with. Raises RecipeError for one that no run can go on with."""
    kind, _, name = key.strip().partition(":")
    brought = {path.name for path in workspace.adapters.iterdir() if path.is_dir()} if kind == "adapter" else set()
    if kind not in ("adapter", "run") or not name or (kind == "adapter" and name not in brought):
        raise RecipeError(f"{SETTING}: {key!r} is not valid; {ALLOWED}.")
    source = find_chat_model(workspace, key)
    assert source.adapter is not None  # neither a run nor an adapter is a base alone
    config = read_json(source.adapter / CONFIG)
    if not (isinstance(config, dict) and _is_sound(config)):
        raise RecipeError(f"{SETTING}: the adapter {source.label} is damaged: its {CONFIG} cannot be read.")
    settings = {
        "model": source.model,
        "lora.rank": config["r"],
        "lora.alpha": float(config["lora_alpha"]),
        "lora.scaling": "rank_stabilised" if config.get("use_rslora") else "standard",
        "lora.dora": bool(config.get("use_dora")),
    }
    if kind == "run":
        lora = Run(workspace.runs / source.key.removeprefix("run:").partition("/")[0]).recipe().lora
        settings |= {"lora.targets": lora.targets, "lora.extra_modules": lora.extra_modules}
        settings |= {f"quantization.{name}": value for name, value in source.quantization.items()}
    else:
        _refuse_kind(source, config)
        settings["lora.targets"] = _targets(_layers(source, settings["lora.rank"]), _linear(source))
        settings["lora.extra_modules"] = config.get("modules_to_save") or []
    return StartingAdapter(source, source.adapter, settings)


def take_over(recipe: Recipe, workspace: Workspace) -> tuple[Recipe, StartingAdapter | None]:
    """`recipe` completed from its starting adapter, and that adapter or None. Raises RecipeError where they differ."""
    if recipe.lora.start_from is None:
        return recipe, None
    start = find_starting_adapter(recipe.lora.start_from, workspace)
    given = _given(recipe)
    values = {key: value for key, value in start.settings.items() if key not in given}
    settled = make_recipe({**recipe.model_dump(), **values})
    _refuse_other_base(settled, start)
    for key in ("lora.rank", "lora.alpha", "lora.scaling", "lora.dora", "lora.targets", "lora.extra_modules"):
        if key in given and not _agree(key, given[key], start):
            raise RecipeError(
                f"{key}: {_shown(given[key])} is not possible: the adapter {start.source.label} has "
                f"{_shown(start.settings[key])}, and its training continues with it. Use that value, or choose a new "
                f"adapter ({SETTING})."
            )
    return settled, start


def copy_adapter(start: StartingAdapter, folder: Path) -> None:
    """Copy the adapter into a new run's `folder`, with what is known of its base: its commit, or its files."""
    target = folder / "start"
    target.mkdir()
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(start.folder / name, target / name)
    template = start.folder / TEMPLATE_FILE
    if template.is_file():
        (target / TEMPLATE_FILE).write_text(plain_template(template.read_text(encoding="utf-8")), encoding="utf-8")
    if start.source.pinned is not None and start.source.pinned.is_file():
        shutil.copyfile(start.source.pinned, folder / FILE)
    elif start.source.revision:
        write_json(folder / FILE, {"model": start.source.model, "revision": start.source.revision})


def _is_sound(config: dict[str, Any]) -> bool:
    """Whether the fields that are read of a foreign file have the right types."""
    rank, alpha, whole = (config.get(key) for key in ("r", "lora_alpha", "modules_to_save"))
    return isinstance(rank, int) and isinstance(alpha, (int, float)) and isinstance(whole, (list, type(None)))


def _given(recipe: Recipe) -> dict[str, Any]:
    """What the recipe itself says of the model and the adapter, by dotted key."""
    groups = {"lora": recipe.lora, "quantization": recipe.quantization}
    given = {f"{name}.{key}": getattr(group, key) for name, group in groups.items() for key in group.model_fields_set}
    return given | ({"model": recipe.model} if "model" in recipe.model_fields_set else {})


def _agree(key: str, given: Any, start: StartingAdapter) -> bool:
    own = start.settings[key]
    if key == "lora.extra_modules":
        return set(given) == set(own)
    if key != "lora.targets" or given == own:
        return bool(given == own)
    linear = _linear(start.source)
    return bool(linear) and all(wanted(name, given) == wanted(name, own) for name in linear)


def _refuse_other_base(recipe: Recipe, start: StartingAdapter) -> None:
    source = start.source
    _refuse_changed_base(source)
    if recipe.model == source.model:
        return
    given = find_model(recipe.model)
    try:
        same = given.source == find_model(source.model).source
    except ModelError:  # its own is no longer to be found
        same = False
    if not same:
        raise RecipeError(
            f"model: {recipe.model!r} is not possible: the adapter {source.label} was trained on {source.model}. Set "
            f"model to it, or choose a new adapter."
        )


def _refuse_changed_base(source: ChatModel) -> None:
    """Refuse a base that is known to have changed; the run's worker compares large files that were touched."""
    pinned = read_pin(source.pinned) if source.pinned is not None else None
    if pinned is None:
        return
    found = find_model(source.model)
    change = change_of(found.folder, pinned) if found.folder is not None else None
    if change is not None:
        raise RecipeError(f"{SETTING}: {change.sentence(f'{source.label}, {found.label},')}")


def _refuse_kind(source: ChatModel, config: dict[str, Any]) -> None:
    begun = config.get("init_lora_weights")
    changes = isinstance(begun, str) and begun.lower().startswith(_CHANGES_THE_BASE)
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or changes:
        what = "changes its base model" if changes else "is not plain LoRA"
        raise RecipeError(f"{SETTING}: the adapter {source.label} {what}, so its training cannot be continued here.")
    odd = next((key for key in _UNKNOWN if config.get(key)), None)
    if odd is not None:
        raise RecipeError(
            f"{SETTING}: the adapter {source.label} has {odd}, which is not supported for imported adapters. Start "
            f"from its run, or use the tool that made it."
        )


def _layers(source: ChatModel, rank: int) -> list[str]:
    """The layers with an adapter, by their names in the base. Raises RecipeError where one is not of `rank`."""
    assert source.adapter is not None
    try:
        with safe_open(source.adapter / WEIGHTS, framework="numpy") as opened:
            keys = list(opened.keys())
            ranks = {key: int(opened.get_slice(key).get_shape()[0]) for key in keys if key.endswith(_A)}
    except (SafetensorError, OSError):
        raise RecipeError(f"{SETTING}: the adapter {source.label} is damaged: {WEIGHTS} cannot be read.") from None
    odd = next((key for key in keys if "lora_embedding" in key), None)
    if odd is not None or set(ranks.values()) != {rank}:
        what = "an adapter on the embeddings" if odd else "layers of different ranks" if ranks else "no LoRA weights"
        raise RecipeError(
            f"{SETTING}: the adapter {source.label} has {what}, and its training cannot be continued here."
        )
    return [key.removeprefix("base_model.model.").removesuffix(_A) for key in ranks]


def _linear(source: ChatModel) -> list[str]:
    """The linear layers of the base without its head, as its files name them; empty while it is only online."""
    try:
        found: FoundModel = find_model(source.model, source.revision)
    except NibbleError:
        return []
    return [shape.name.rpartition(".")[0] for shape in found.tensors if shape.quantised]


def _targets(modules: Sequence[str], linear: Sequence[str]) -> list[str]:
    """`modules` in short: the ends of their names, where these match no other layer of the base."""
    ends = list(dict.fromkeys(name.rpartition(".")[2] for name in modules))
    known = set(modules) if set(modules) <= set(linear) else set()
    if known and {name for name in linear if wanted(name, ends)} == known:
        return ends
    return list(modules)


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return (", ".join(value[:SHOWN]) + ", …" * (len(value) > SHOWN)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
