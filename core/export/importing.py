"""Takes in an adapter from elsewhere, a PEFT folder or zip, for Chat and Arena; of weights only safetensors. No torch.

A zip is read as data from a stranger: how many files, how large, how far they unpack, where they would lie.
"""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from safetensors import SafetensorError, safe_open

from core.errors import ModelError
from core.export.naming import safe_name
from core.export.place import ExportError, refuse_full_disk, writing
from core.hub import is_plain
from core.models import find_model, model_presets
from core.sizes import show_bytes
from core.workspace import ROOT, Workspace, as_path, write_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MOST_FILES = 500
MOST_BYTES = 20_000_000_000
# How many bytes one in the zip may become; weights do not shrink, and text not so far.
MOST_RATIO = 200
# What an adapter's folder holds that is of use here; all else stays outside.
_TAKEN = (".json", ".safetensors", ".jinja", ".txt", ".model", ".md", ".yaml", ".svg")


@dataclass(frozen=True)
class _Part:
    """One file that could be taken: its name below the adapter's folder, its size, and how it is opened."""

    name: str
    bytes: int
    source: Path | zipfile.ZipInfo


def import_adapter(workspace: Workspace, source: Path, name: str = "", base: str = "") -> Path:
    """Copy the adapter in `source`, a folder or zip, to `workspace/adapters/<name>`; returns that folder.

    `base` stands in for the base that the adapter names, which may be a path on another machine. Raises ExportError:
    not an adapter, pickled, unsafe or too large; a name that is taken; a base that is not known.
    """
    called = safe_name(name or source.name.removesuffix(".zip"), "adapter")
    target = workspace.adapters / called
    if target.exists():
        raise ExportError(f"There is an adapter {called!r} already. Give this one another name.")
    if source.is_dir():
        return _take(target, _folder_parts(source), None, base)
    try:
        with zipfile.ZipFile(source) as packed:
            return _take(target, _zip_parts(packed), packed, base)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError):
        raise ExportError(f"{source.name} is neither a folder nor a zip that can be read. Download it again.") from None
    except OSError as error:
        raise ExportError(f"{source.name} cannot be read: {error.strerror or error}.") from None


def _folder_parts(folder: Path) -> list[_Part]:
    files = [path for path in sorted(folder.iterdir()) if not path.is_dir()]
    linked = next((path.name for path in files if path.is_symlink()), None)
    if linked is not None:
        raise ExportError(f"{linked} is a link to somewhere else. Put the file itself into the folder.")
    return _useful(_Part(path.name, path.stat().st_size, path) for path in files)


def _zip_parts(packed: zipfile.ZipFile) -> list[_Part]:
    """The files beside adapter_config.json, wherever in the zip that lies. Raises ExportError for an unsafe zip."""
    entries = [entry for entry in packed.infolist() if not entry.is_dir()]
    if len(packed.infolist()) > MOST_FILES:
        raise ExportError(f"The zip holds {len(packed.infolist()):,} files; an adapter has at most {MOST_FILES}.")
    for entry in entries:
        _refuse_entry(entry)
    configs = [PurePosixPath(entry.filename) for entry in entries if PurePosixPath(entry.filename).name == CONFIG]
    if len(configs) != 1:
        found = "no" if not configs else f"{len(configs)} files called"
        raise ExportError(f"The zip is not that of one adapter: it holds {found} {CONFIG}.")
    home = configs[0].parent
    inside = (entry for entry in entries if PurePosixPath(entry.filename).parent == home)
    return _useful(_Part(PurePosixPath(entry.filename).name, entry.file_size, entry) for entry in inside)


def _refuse_entry(entry: zipfile.ZipInfo) -> None:
    shown = entry.filename[:80]
    if not is_plain(entry.filename) or entry.orig_filename != entry.filename:
        raise ExportError(f"The zip holds {shown!r}, which would lie outside of its folder. It is not unpacked.")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise ExportError(f"The zip holds {shown!r}, a link to somewhere else. It is not unpacked.")
    if entry.flag_bits & 0x1:
        raise ExportError("The zip is locked with a password. Unpack it yourself, and give the folder.")
    if entry.file_size > MOST_RATIO * max(entry.compress_size, 1):
        raise ExportError(f"The zip holds {shown!r}, which unpacks to far more than it is. It is not unpacked.")


def _useful(parts: Iterable[_Part]) -> list[_Part]:
    """What is taken. Raises ExportError where an adapter is not whole, pickled, or too large."""
    parts = list(parts)
    names = {part.name for part in parts}
    if CONFIG not in names:
        raise ExportError(f"This is no adapter: there is no {CONFIG} in it.")
    if WEIGHTS not in names:
        pickled = any(name.endswith((".bin", ".pt", ".pth", ".pkl")) for name in names)
        why = "only pickled weights, which can run any code when loaded" if pickled else "no weights"
        raise ExportError(f"This adapter has {why}. Take a copy of it with {WEIGHTS}.")
    taken = [part for part in parts if part.name.endswith(_TAKEN)]
    size = sum(part.bytes for part in taken)
    if size > MOST_BYTES:
        raise ExportError(f"This takes {show_bytes(size)}; an adapter has at most {show_bytes(MOST_BYTES)}.")
    return taken


def _take(target: Path, parts: list[_Part], packed: zipfile.ZipFile | None, base: str) -> Path:
    refuse_full_disk(target, sum(part.bytes for part in parts))
    with writing(target) as folder:
        for part in parts:
            _copy(part, packed, folder / part.name)
        _refuse_weights(folder / WEIGHTS)
        config = _config(folder / CONFIG)
        config["base_model_name_or_path"] = _base(config, base)
        write_json(folder / CONFIG, config)
    return target


def _copy(part: _Part, packed: zipfile.ZipFile | None, target: Path) -> None:
    """Copy at most as many bytes as were said: a zip can lie about them."""
    if isinstance(part.source, Path):
        shutil.copyfile(part.source, target)
        return
    assert packed is not None
    with packed.open(part.source) as source, target.open("wb") as copy:
        _copy_exactly(source, copy, part)


def _copy_exactly(source: IO[bytes], copy: IO[bytes], part: _Part) -> None:
    left = part.bytes
    while block := source.read(min(2**20, left + 1)):
        left -= len(block)
        if left < 0:
            raise ExportError(f"{part.name} unpacks to more than the zip says. It is not taken.")
        copy.write(block)


def _config(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ExportError(f"The adapter's {CONFIG} cannot be read. Download it again.")
    kind = values.get("peft_type")
    if kind != "LORA":
        raise ExportError(f"The adapter is of the kind {str(kind)[:40]!r}; only LoRA's can be used here, with DoRA's.")
    values["auto_mapping"] = None  # which class loads the base is for this machine to say
    return values


def _refuse_weights(file: Path) -> None:
    try:
        with safe_open(file, framework="numpy") as opened:
            names = list(opened.keys())
    except (SafetensorError, OSError):
        raise ExportError(f"The adapter's {WEIGHTS} is damaged. Download it again.") from None
    if not any("lora_" in name for name in names):
        raise ExportError(f"The adapter's {WEIGHTS} holds no LoRA weights.")


def _base(config: dict[str, Any], given: str) -> str:
    """The base, as this machine finds it. Raises ExportError where it names a place that is not here."""
    named = given.strip() or str(config.get("base_model_name_or_path") or "").strip()
    plain = named.replace("\\", "/").rstrip("/")
    for preset in model_presets().values():
        if plain.endswith(f"/{preset.path}") or plain == preset.name or as_path(named) == ROOT / preset.path:
            return preset.name
    if not named:
        raise ExportError("The adapter does not say which base it is for. Choose the base that it was trained over.")
    if as_path(named) is None and (plain.startswith((".", "/", "~")) or ":" in plain or plain.count("/") != 1):
        raise ExportError(
            f"The adapter was trained over {plain.rpartition('/')[2][:80]!r}, a folder of another machine. Choose "
            "where that base is here, or its Hugging Face id."
        )
    if as_path(named) is not None:
        try:
            find_model(named)
        except ModelError as error:
            raise ExportError(f"The adapter's base cannot be used. {error}") from None
    return named
