"""Takes in an adapter from elsewhere, a PEFT folder, zip or tar, for Chat and Arena; of weights only safetensors.

What is packed is read as data from a stranger (core/untrusted/archives.py). Imports no torch.
"""

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from core.basemodel.find import find_model, model_presets
from core.errors import ModelError, NibbleError
from core.export.shared.destination import ExportError, refuse_full_disk, writing
from core.export.shared.names import safe_name
from core.sizes import show_bytes
from core.untrusted.adapter_files import layers_of, refuse_kind
from core.untrusted.archives import ArchiveError, ArchiveLimits, entries_of, is_archive, unpack
from core.untrusted.model_files import read_settings, refuse_adapter_settings
from core.untrusted.paths import Reach
from core.workspace import ROOT, Workspace, as_path, write_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MOST_BYTES = 20_000_000_000
# Weights do not shrink when they are packed, and text not so far. A whole run of another tool may be packed with it.
LIMITS = ArchiveLimits(entries=500, bytes=5 * MOST_BYTES, ratio=200, free_bytes=1_000_000)
_PACKED = re.compile(r"\.(zip|tar|tar\.gz|tgz)$", re.IGNORECASE)
# What an adapter's folder holds that is of use here; all else stays outside.
_TAKEN = (".json", ".safetensors", ".jinja", ".txt", ".model", ".md", ".yaml", ".svg")


@dataclass(frozen=True)
class _Part:
    """One file that could be taken: its name below the adapter's folder, its size, and its path or name where it is."""

    name: str
    bytes: int
    source: Path | str


def import_adapter(
    workspace: Workspace, source: Path, name: str = "", base: str = "", reach: Reach | None = None
) -> Path:
    """Copy the adapter in `source`, a folder or archive, to `workspace/adapters/<name>`; returns that folder.

    `base` stands in for the base that the adapter names, which may be a path on another machine, and must be within
    `reach`. Raises NibbleError: not an adapter, pickled, unsafe or too large; a name that is taken; an unknown base.
    """
    called = safe_name(name or _PACKED.sub("", source.name), "adapter")
    target = workspace.adapters / called
    if target.exists():
        raise ExportError(f"An adapter {called!r} already exists. Choose another name.")
    try:
        if source.is_dir():
            parts = _folder_parts(source)
        elif is_archive(source):
            parts = _packed_parts(source)
        else:
            raise ExportError(f"{source.name} is neither a folder nor a readable zip. Download it again.")
        return _take(target, parts, source, base, reach or Reach.of(workspace))
    except ArchiveError as error:
        raise ExportError(str(error)) from None
    except OSError as error:
        raise ExportError(f"{source.name} cannot be read: {error.strerror or error}.") from None


def _folder_parts(folder: Path) -> list[_Part]:
    files = [path for path in sorted(folder.iterdir()) if not path.is_dir()]
    linked = next((path.name for path in files if path.is_symlink()), None)
    if linked is not None:
        raise ExportError(f"{linked} is a link to another place. Put the file itself into the folder.")
    return _useful(_Part(path.name, path.stat().st_size, path) for path in files)


def _packed_parts(source: Path) -> list[_Part]:
    """The files beside adapter_config.json, wherever in the archive that lies. Raises ArchiveError, ExportError."""
    entries = entries_of(source, LIMITS)
    configs = [PurePosixPath(entry.name) for entry in entries if PurePosixPath(entry.name).name == CONFIG]
    if len(configs) != 1:
        found = "no" if not configs else f"{len(configs)} files called"
        raise ExportError(f"{source.name} is not a single adapter: it contains {found} {CONFIG}.")
    inside = (entry for entry in entries if PurePosixPath(entry.name).parent == configs[0].parent)
    return _useful(_Part(PurePosixPath(entry.name).name, entry.bytes, entry.name) for entry in inside)


def _useful(parts: Iterable[_Part]) -> list[_Part]:
    """What is taken. Raises ExportError where an adapter is not whole, pickled, or too large."""
    parts = list(parts)
    names = {part.name for part in parts}
    if CONFIG not in names:
        raise ExportError(f"This is not an adapter: it contains no {CONFIG}.")
    if WEIGHTS not in names:
        pickled = any(name.endswith((".bin", ".pt", ".pth", ".pkl")) for name in names)
        why = "only pickled weights, which can run any code when loaded" if pickled else "no weights"
        raise ExportError(f"This adapter has {why}. Use a version with {WEIGHTS}.")
    taken = [part for part in parts if part.name.endswith(_TAKEN)]
    size = sum(part.bytes for part in taken)
    if size > MOST_BYTES:
        raise ExportError(f"This takes {show_bytes(size)}; an adapter has at most {show_bytes(MOST_BYTES)}.")
    return taken


def _take(target: Path, parts: list[_Part], source: Path, base: str, reach: Reach) -> Path:
    refuse_full_disk(target, sum(part.bytes for part in parts))
    with writing(target) as folder:
        unpack_these = {part.source: folder / part.name for part in parts if isinstance(part.source, str)}
        if unpack_these:
            unpack(source, unpack_these, LIMITS)
        for part in parts:
            if isinstance(part.source, Path):
                shutil.copyfile(part.source, folder / part.name)
        _refuse_weights(folder / WEIGHTS)
        config = _config(folder, target.name)
        config["base_model_name_or_path"] = _base(config, base, reach)
        write_json(folder / CONFIG, config)
    return target


def _config(folder: Path, name: str) -> dict[str, Any]:
    """The adapter's settings, with what the chat would refuse refused already. Raises ExportError."""
    try:
        values = read_settings(folder / CONFIG)
        refuse_kind(values, name)
        refuse_adapter_settings(values, name, layers_of(folder))
    except ModelError as error:
        raise ExportError(str(error)) from None
    values["auto_mapping"] = None  # which class loads the base is for this machine to say
    return values


def _refuse_weights(file: Path) -> None:
    try:
        with safe_open(file, framework="numpy") as opened:
            names = list(opened.keys())
    except (SafetensorError, OSError):
        raise ExportError(f"The adapter's {WEIGHTS} is damaged. Download it again.") from None
    if not any("lora_" in name for name in names):
        raise ExportError(f"The adapter's {WEIGHTS} contains no LoRA weights.")


def _base(config: dict[str, Any], given: str, reach: Reach) -> str:
    """The base, as this machine finds it. Raises ExportError where it names a place that is not here."""
    named = given.strip() or str(config.get("base_model_name_or_path") or "").strip()
    plain = named.replace("\\", "/").rstrip("/")
    for preset in model_presets().values():
        if plain.endswith(f"/{preset.path}") or plain == preset.name or as_path(named) == ROOT / preset.path:
            return preset.name
    if not named:
        raise ExportError("The adapter does not name its base model. Choose the base model it was trained on.")
    try:
        found = reach.name_or_path(named, "The adapter's base model")
    except NibbleError:
        if given.strip():
            raise
        found = ""  # whether there is such a folder is not for the adapter to find out
    foreign = plain.startswith((".", "/", "~")) or ":" in plain or plain.count("/") != 1
    if not found or (as_path(found) is None and foreign):
        raise ExportError(
            f"The adapter was trained on {plain.rpartition('/')[2][:80]!r}, a folder on another machine. Choose "
            f"that base model's folder here, or its Hugging Face id."
        )
    if as_path(found) is not None:
        try:
            find_model(found)
        except ModelError as error:
            raise ExportError(f"The adapter's base model cannot be used. {error}") from None
    return found
