"""Base models: which there are, where one is found, and what its files say. Imports no torch, loads no weights."""

import difflib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from core.basemodel.architectures import needs_code
from core.basemodel.headers import TensorShape, read_header
from core.basemodel.hub import INDEX, SINGLE, HubFile, bytes_here, cache_folder, fetch_small, look_up
from core.catalogue.facts import model_facts
from core.errors import ModelError
from core.untrusted.model_files import read_settings, refuse_config, refuse_oversized
from core.untrusted.paths import is_plain
from core.workspace import PRESETS, ROOT, Workspace, as_path

TEMPLATE_FILE = "chat_template.jinja"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.safetensors")
_TOKENIZER = re.compile(r"tokenizer|tekken|vocab|spiece|sentencepiece|spm|merges")
_COMMIT = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)
_FOLDER_HINT = "A model folder contains config.json, tokenizer files and *.safetensors."


@dataclass(frozen=True)
class ModelChoice:
    """One entry of the menu of base models; `kind` is 'preset', 'local' or 'cache'."""

    value: str
    label: str
    kind: str


@dataclass(frozen=True)
class FoundModel:
    """A base model that exists: what was typed, what it is known by, and its config.

    `source` is a folder, or a Hugging Face id; `folder` is where its files are, None while they are only online.
    `revision` is the commit of an id; `files` is what a download has to bring while it is only online.
    """

    wanted: str
    source: str
    label: str
    config: dict[str, Any]
    folder: Path | None
    revision: str | None = None
    files: tuple[HubFile, ...] = ()
    parameters_online: int = 0

    @cached_property
    def tensors(self) -> list[TensorShape]:
        """Shapes of all its tensors, from the headers of its safetensors files; empty while only online."""
        if self.folder is None:
            return []
        return [shape for file in weight_files(self.folder) for shape in read_header(file)]

    @property
    def model_type(self) -> str:
        """transformers' name of its family, such as 'llama'; '' where its config does not say."""
        return str(self.config.get("model_type", ""))

    @property
    def context_length(self) -> int | None:
        """How many tokens it was made for; None where its config does not say."""
        most = self.config.get("max_position_embeddings") or (self.config.get("text_config") or {}).get(
            "max_position_embeddings"
        )
        return most if isinstance(most, int) and most > 0 else None

    @property
    def parameters(self) -> int:
        """Numbers in its files; while only online as the Hub has counted them, 0 where it has not."""
        return sum(tensor.elements for tensor in self.tensors) or self.parameters_online

    @property
    def download_bytes(self) -> int:
        """What is still to be downloaded before it can be loaded."""
        if not self.files:
            return 0
        return sum(file.bytes for file in self.files) - bytes_here(self.source, str(self.revision), self.files)


@dataclass(frozen=True)
class ModelPreset:
    """A model of presets/models: `path` is a folder in the repository."""

    name: str
    title: str
    path: str


def model_presets() -> dict[str, ModelPreset]:
    """Shipped model presets by name."""
    presets = {}
    for file in sorted((PRESETS / "models").glob("*.yaml")):
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        presets[file.stem] = ModelPreset(file.stem, values["title"], values["path"])
    return presets


def model_choices(workspace: Workspace) -> list[ModelChoice]:
    """What the menu offers: presets, folders in `<workspace>/models`, and what the Hugging Face cache holds."""
    choices = [ModelChoice(preset.name, preset.title, "preset") for preset in model_presets().values()]
    folder = workspace.path / "models"
    if folder.is_dir():
        local = sorted(path for path in folder.iterdir() if (path / "config.json").is_file())
        choices += [ModelChoice(str(path), f"{path.name} (folder)", "local") for path in local]
    for folder in sorted(cache_folder().glob("models--*--*")):  # others may be writing to it meanwhile
        model_id = folder.name.removeprefix("models--").replace("--", "/", 1)
        if _is_hub_id(model_id) and _cached_folder(model_id) is not None:
            choices.append(ModelChoice(model_id, f"{model_id} (downloaded)", "cache"))
    return choices


def find_model(wanted: str, revision: str | None = None) -> FoundModel:
    """The base model that was meant: a preset's name, a folder, or a Hugging Face id, at the commit `revision`.

    Raises ModelError: no such preset, folder or id; gated; no network; no weights; only pickled weights.
    """
    preset = model_presets().get(wanted)
    if preset is not None:
        return _in_folder(wanted, ROOT / preset.path, preset.title)
    path = as_path(wanted)
    if path is not None and path.is_dir():
        return _in_folder(wanted, path, path.resolve().name)
    if path is not None and path.is_file():
        raise ModelError(f"{path.name} is a file, not a model. {_FOLDER_HINT}")
    facts = model_facts().get(wanted)
    if facts is not None:
        return _on_hub(facts.hub, revision)
    if not _is_hub_id(wanted):
        near = difflib.get_close_matches(wanted[:100].lower(), [*model_presets(), *model_facts()], n=3)
        similar = f" Similar: {', '.join(near)}." if near else ""
        raise ModelError(
            f"There is no model {wanted!r}.{similar} Give a name that docs/settings.md lists, such as starter, a "
            f"folder, or a Hugging Face id such as org/name."
        )
    return _on_hub(wanted, revision)


def _is_hub_id(text: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return _HUB_ID.fullmatch(text) is not None


def _in_folder(wanted: str, folder: Path, label: str) -> FoundModel:
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        base = read_settings(folder / "adapter_config.json").get("base_model_name_or_path", "another model")
        raise ModelError(f"{folder.name} is an adapter, not a base model. Its base model is {base}; choose that.")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder.name} is not a model: it contains no config.json. {_FOLDER_HINT}")
    config = read_settings(folder / "config.json")
    _refuse_weights({path.name for path in folder.iterdir()}, folder.name)
    _refuse_config(config, folder.name)
    _refuse_missing_shards(folder)
    found = FoundModel(wanted, str(folder.resolve()), label, config, folder.resolve())
    if not found.tensors:
        raise ModelError(f"The weights in {folder.name} hold no tensors. Download the model again.")
    return _as_described(found)


def _as_described(found: FoundModel) -> FoundModel:
    """`found`, where its files are what its config says, and nothing is laid over it unseen. Raises ModelError."""
    refuse_oversized(found.config, found.parameters, found.label)
    if found.folder is not None and (found.folder / "adapter_config.json").exists():
        raise ModelError(
            f"{found.label} contains an adapter next to the model (adapter_config.json), which would be applied "
            f"unnoticed. Put them into separate folders."
        )
    return found


def _refuse_weights(names: set[str], label: str) -> None:
    if any(name.endswith(".safetensors") for name in names):
        return
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        raise ModelError(
            f"{label} has only pickled weights (.bin), which can run any code when loaded. Use a version with "
            f"*.safetensors files."
        )
    if any(name.endswith(".gguf") for name in names):
        raise ModelError(
            f"{label} is a GGUF, which can be run but not trained. Use the original model with *.safetensors files."
        )
    raise ModelError(f"{label} has no weights: there is no *.safetensors file. Download the model again.")


def _refuse_config(config: dict[str, Any], label: str) -> None:
    refuse_config(config, label)
    needs_code(config)


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads: model.safetensors, else those of the index; of others all there are."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return [folder / name for name in _indexed(folder / INDEX)]
    return sorted(folder.glob("*.safetensors"))


def _indexed(index: Path) -> list[str]:
    """The weight files that an index names."""
    named = read_settings(index).get("weight_map")
    names = sorted({str(name) for name in named.values()}) if isinstance(named, dict) else []
    odd = next((name for name in names if not (is_plain(name) and name.endswith(".safetensors"))), None)
    if odd is not None:
        raise ModelError(
            f"{index.name} names {odd[:80]!r} as a weight file, which is not a valid name. Use another copy."
        )
    return names


def _refuse_missing_shards(folder: Path) -> None:
    named = weight_files(folder)
    missing = [file.name for file in named if not file.is_file()]
    if missing:
        raise ModelError(
            f"{folder.name} is incomplete: {len(missing)} of {len(named)} weight files are missing, {missing[0]} first."
            " Download the model again."
        )


def _on_hub(model_id: str, revision: str | None) -> FoundModel:
    """A model known by its id: from the cache if it is whole there, else asked for over the network."""
    if revision is not None and not (isinstance(revision, str) and _COMMIT.fullmatch(revision)):
        raise ModelError(f"{model_id}: {str(revision)[:60]!r} is not one of its commits. Leave it out, or give one.")
    folder = _cached_folder(model_id, revision)
    if folder is None:
        return _online(model_id, revision)
    config = read_settings(folder / "config.json")
    _refuse_config(config, model_id)
    return _as_described(FoundModel(model_id, model_id, model_id, config, folder, revision=folder.name))


def _cached_folder(model_id: str, revision: str | None = None) -> Path | None:
    """Where the cache holds the model whole, at the newest commit that it knows of or at `revision`; else None."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model_id, "config.json", revision=revision)
    folder = Path(config).parent if isinstance(config, str) else None
    return folder if folder is not None and _is_whole(folder) else None


def _is_whole(folder: Path) -> bool:
    """Whether a snapshot in the cache can be loaded: it may have been begun only, or by a tool that wanted a part."""
    names = {path.name for path in folder.iterdir()}
    try:
        weights = weight_files(folder)
    except ModelError:  # the index is damaged
        return False
    parts = _SHARD.search(weights[0].name) if weights else None
    return (
        bool(weights)
        and all(file.is_file() for file in weights)
        and (parts is None or len(weights) == int(parts[1]))
        and any(_TOKENIZER.match(name) for name in names)
    )


def _online(model_id: str, revision: str | None) -> FoundModel:
    hub = look_up(model_id, revision)
    if "config.json" not in hub.files:
        raise ModelError(f"{model_id} has no config.json, so it cannot be trained.")
    _refuse_weights(set(hub.files), model_id)
    config = read_settings(fetch_small(model_id, "config.json", revision))
    _refuse_config(config, model_id)
    weights = [SINGLE] if SINGLE in hub.files else []
    index = []
    if not weights and INDEX in hub.files:
        index = [hub.files[INDEX]]
        weights = _indexed(fetch_small(model_id, INDEX, hub.commit))
    if not weights or any(name not in hub.files for name in weights):
        raise ModelError(
            f"{model_id} has no loadable weights: neither {SINGLE} nor all files of {INDEX}. Use a version that has "
            f"them."
        )
    files = (*hub.settings(), *index, *(hub.files[name] for name in weights))
    return _as_described(FoundModel(model_id, model_id, model_id, config, None, hub.commit, files, hub.parameters))
