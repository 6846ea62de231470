"""Whether an adapter belongs to a base, and what it changes in it beside its own matrices."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from bitsandbytes.nn import Int8Params, Params4bit
from safetensors import SafetensorError, safe_open

from core.basemodel.find import FoundModel
from core.errors import ModelError
from core.runs.manifest import MANIFEST
from core.text.library_errors import telling_line
from core.untrusted.adapter_files import CONFIG, WEIGHTS, layer_of, refuse_adapter_files, refuse_damaged, refuse_kind
from core.untrusted.patterns import refuse_endless_patterns

_PREFIX = "base_model.model."
_TOKENS = (
    "it was trained with tokens the base model does not have. Merge it with the tool that made it, and choose the "
    "merged model."
)


@dataclass(frozen=True)
class Bare:
    """The modules and weights of a base with no adapter over it, by name: an adapter moves them to other names."""

    modules: dict[str, Any]
    weights: dict[str, Any]


@dataclass(frozen=True)
class Footing:
    """What an adapter does to its base beside adding matrices to linear layers.

    `whole`: modules that it brings a copy of; `parameters`: fused weights that it lays matrices over; `writes`: weights
    of the base that its file writes over. `alone`: PEFT cannot hold it beside others, or they would not be as they are
    alone: single tokens, embeddings, tied copies, whatever it writes over.
    """

    whole: frozenset[str]
    parameters: frozenset[str]
    writes: tuple[str, ...]
    alone: bool

    def beside(self, other: Footing) -> bool:
        """Whether both can be loaded over one base without changing each other."""
        same = self.whole == other.whole and self.parameters == other.parameters
        return same and not self.alone and not other.alone


def refuse_adapter(folder: Path, base: Bare, found: FoundModel) -> Footing:
    """What the adapter in `folder` stands on. Raises ModelError: damaged, of another base, of a kind for no base."""
    try:
        if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
            raise ModelError(gone(folder))
        config = refuse_adapter_files(folder)
        shapes = shapes_of(folder)
    except SafetensorError as error:
        refuse_damaged(folder)
        raise ModelError(f"The adapter {name_of(folder)} cannot be read: {telling_line(error)}.") from None
    _refuse_cut_short(folder)
    refuse_kind(config, name_of(folder))
    refuse_endless_patterns(config, name_of(folder), base.modules)
    _refuse_base(folder, config, shapes, base.modules, found)
    _refuse_tokens(config, base.modules, folder, found)
    return _footing(config, shapes, base.weights, folder, found)


def gone(folder: Path) -> str:
    """The message that the adapter no longer exists."""
    return f"The adapter {name_of(folder)} no longer exists: a run keeps only its newest checkpoints. Choose another."


def name_of(folder: Path) -> str:
    """The adapter's name for the user: a checkpoint by its step."""
    return f"of step {folder.parent.name}" if folder.name == "adapter" and folder.parent.name.isdigit() else folder.name


def shapes_of(folder: Path) -> dict[str, list[int]]:
    """The tensors in its file, with their sizes. Raises SafetensorError."""
    with safe_open(folder / WEIGHTS, framework="pt") as opened:
        return {key: list(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118 (no mapping)


def _refuse_cut_short(folder: Path) -> None:
    """Raise ModelError where a file is shorter than the checkpoint's manifest says."""
    for place, inside in ((folder, ""), (folder.parent, f"{folder.name}/")):
        manifest = place / MANIFEST
        if not manifest.is_file():
            continue
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        size = files.get(f"{inside}{WEIGHTS}", {}).get("bytes")
        if size is not None and size != (folder / WEIGHTS).stat().st_size:
            raise ModelError(f"The adapter {name_of(folder)} is incomplete. Choose another checkpoint.")


def _refuse_base(
    folder: Path, config: dict[str, Any], shapes: dict[str, list[int]], modules: dict[str, Any], found: FoundModel
) -> None:
    named = str(config.get("base_model_name_or_path") or "")
    if (named and not _same(named, found)) or not all(_fits(key, shape, modules) for key, shape in shapes.items()):
        trained = _short(named) or "another model"
        raise ModelError(
            f"The adapter {name_of(folder)} was trained on {trained}, not on {found.label}. Choose it with its own "
            f"base model."
        )


def _same(named: str, found: FoundModel) -> bool:
    """Whether the name in an adapter's files means this base. A folder that was moved keeps its last part."""
    own = {found.wanted, found.source}
    return named in own or _short(named) in {_short(each) for each in own}


def _short(named: str) -> str:
    """A Hugging Face id as it is, of a folder its own name."""
    plain = PurePosixPath(named.replace("\\", "/"))
    return named if len(plain.parts) <= 2 and not plain.is_absolute() else plain.name


def _fits(key: str, shape: list[int], modules: dict[str, Any]) -> bool:
    """Whether a matrix of an adapter finds its layer, with the layer's sizes."""
    matrix = key.rpartition(".lora_")[2]
    if ".lora_" not in key or not matrix.startswith(("A.", "B.")):
        return True
    layer = modules.get(layer_of(key))
    if layer is None:
        return False
    sizes = (getattr(layer, "in_features", None), getattr(layer, "out_features", None))
    size = sizes[matrix.startswith("B.")]
    return size is None or shape[0 if matrix.startswith("B.") else 1] == size


def _refuse_tokens(config: dict[str, Any], modules: dict[str, Any], folder: Path, found: FoundModel) -> None:
    """Raise ModelError for single trained tokens that the base has no embedding of."""
    given = config.get("trainable_token_indices") or []
    tokens = [each for some in given.values() for each in some] if isinstance(given, dict) else given
    rows = max((each.num_embeddings for each in modules.values() if isinstance(each, torch.nn.Embedding)), default=0)
    if tokens and max(tokens) >= rows:
        raise ModelError(
            f"The adapter {name_of(folder)} trains token {max(tokens):,}, and {found.label} has {rows:,}: {_TOKENS}"
        )


def _footing(
    config: dict[str, Any], shapes: dict[str, list[int]], weights: dict[str, Any], folder: Path, found: FoundModel
) -> Footing:
    whole = frozenset(config.get("modules_to_save") or [])
    others = {
        key.removeprefix(_PREFIX).replace(".base_layer", ""): shape
        for key, shape in shapes.items()
        if ".lora_" not in key and ".token_adapter." not in key
    }
    for name, shape in others.items():
        _refuse_weight(name, shape, weights.get(name), folder, found)
    writes = tuple(name for name in others if name in weights and not _is_among(name, whole))
    tokens = config.get("trainable_token_indices") is not None
    embedded = any(".lora_embedding_" in key for key in shapes)
    tied = bool(config.get("ensure_weight_tying"))
    return Footing(
        whole=whole,
        parameters=frozenset(config.get("target_parameters") or []),
        writes=writes,
        alone=tokens or embedded or tied or bool(writes) or config.get("bias", "none") != "none",
    )


def _refuse_weight(name: str, shape: list[int], own: Any, folder: Path, found: FoundModel) -> None:
    """Raise ModelError for a whole weight in an adapter's file that cannot take the place of the base's `own`."""
    if isinstance(own, (Params4bit, Int8Params)):
        raise ModelError(
            f"The adapter {name_of(folder)} has its own {name}, which {found.label} holds in 4 or 8 bits. Merge it"
            " with the tool that made it, and choose the merged model."
        )
    if own is not None and list(own.shape) != shape:
        raise ModelError(
            f"The adapter {name_of(folder)} has {name} of shape {tuple(shape)}, and {found.label} has "
            f"{tuple(own.shape)}: {_TOKENS}"
        )


def _is_among(weight: str, modules: frozenset[str]) -> bool:
    """Whether a weight is one of a module that is named by its end, as PEFT's `modules_to_save` are."""
    holder = weight.rpartition(".")[0]
    parts = [holder, *(holder[:at] for at in range(len(holder)) if holder[at] == ".")]
    return any(part == module or part.endswith(f".{module}") for part in parts for module in modules)
