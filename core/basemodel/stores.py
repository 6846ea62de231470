"""Bases that are kept on the disk in the bits that they are loaded in: found, listed, deleted. Imports no torch.

A store is a folder `quantised/<key>/` of the workspace: weights.bin, index.json and, written last, manifest.json. The
key is a hash of what the packed numbers follow from: the base's files, the bits, the dtype, and the kind of device that
packed them, because sums come out differently on another. A store is written beside, in `.making-<key>`, and renamed:
it is whole or not there.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeGuard

from core.basemodel.find import FoundModel, weight_files
from core.basemodel.hub import cache_folder
from core.basemodel.pin import pin_of
from core.basemodel.store_index import Index, StoreError
from core.settings import QuantizationSettings
from core.sizes import show_bytes
from core.system.file_lock import try_lock
from core.system.full_disk import is_disk_full
from core.workspace import flush_folder, move, read_json, sha256_of, write_json

FORMAT = 1
WEIGHTS, INDEX, MANIFEST = "weights.bin", "index.json", "manifest.json"
# For tests and benchmarks: 'always' makes a store of any base, 'never' neither makes nor opens one.
ENVIRONMENT = "NIBBLE_STORES"
# Smaller bases are loaded from their own files nearly as fast.
MIN_BYTES = 500_000_000
# So much of the disk is left to runs and everything else.
LEAVE_BYTES = 5_000_000_000
# What packed it: another version may pack otherwise.
PACKERS = ("bitsandbytes", "transformers", "torch")
# So long one waits for another process that makes the same store.
PATIENCE_SECONDS = 3600.0
_KEY = re.compile(r"[0-9a-f]{1,64}")
_NOTHING: Callable[[str], None] = lambda said: None  # noqa: E731


@dataclass(frozen=True)
class StoreKey:
    """What a store's numbers follow from, `identity`, and the hash of that, `name`."""

    name: str
    identity: dict[str, Any]
    originals: dict[str, Any]  # the base's weight files, by name, with their stamps; empty for a commit of the Hub
    label: str
    source: str


@dataclass(frozen=True)
class Store:
    """A store that is whole, as far as its manifest, its index and its size say."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def weights(self) -> Path:
        """The file that its blocks are in."""
        return self.folder / WEIGHTS

    @cached_property
    def index(self) -> Index:
        """Its index. Raises StoreError."""
        return Index.from_json(read_json(self.folder / INDEX))

    @property
    def label(self) -> str:
        """The base's name for a person."""
        return str(self.manifest["label"])


@dataclass(frozen=True)
class StoreInfo:
    """A line of the list of stores. `whole` is False for what a crash left; `original` where the base's files are."""

    key: str
    label: str
    bits: int | None
    bytes: int
    made_at: str
    whole: bool
    original: bool

    def as_json(self) -> dict[str, Any]:
        """For `models stores --json`."""
        return dict(vars(self))


def store_key(found: FoundModel, settings: QuantizationSettings, dtype: str, made_on: str) -> StoreKey:
    """The key of the base `found`, whose files are here, loaded in `dtype` on the kind of device `made_on`."""
    assert found.folder is not None
    files = {file.name: file for file in weight_files(found.folder)}
    originals: dict[str, Any] = {}
    if found.revision is not None:
        weights: dict[str, Any] = {"commit": found.revision}
        weights |= {name: file.stat().st_size for name, file in files.items()}
    else:
        pinned = pin_of(found.folder)
        weights = {name: [pinned[name]["stamp"][0], pinned[name]["sample"]] for name in files}
        originals = {name: pinned[name]["stamp"] for name in files}
    four = {"type": settings.type, "double": settings.double} if settings.bits == 4 else {}
    identity = {
        "format": FORMAT,
        "weights": weights,
        "config": hashlib.sha256(json.dumps(found.config, sort_keys=True).encode()).hexdigest(),
        "bits": settings.bits,
        **four,
        "dtype": dtype,
        "made_on": made_on,
    }
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
    return StoreKey(name, identity, originals, found.label, found.source)


def find_store(stores: Path, key: StoreKey) -> Store | None:
    """The store with that key; None where there is none. Raises StoreError where there is one that cannot be used."""
    folder = stores / key.name
    if os.environ.get(ENVIRONMENT) == "never" or not folder.is_dir():
        return None
    manifest = read_json(folder / MANIFEST)
    whose = f"The quantised copy of {key.label}"
    if not _is_manifest(manifest) or manifest["identity"] != key.identity:
        raise StoreError(f"{whose} has no readable manifest.")
    if manifest["versions"] != _versions():
        raise StoreError(f"{whose} was made with other versions of {', '.join(PACKERS)}.")
    if manifest["originals"] != key.originals:
        raise StoreError(f"The files of {key.label} were touched since its quantised copy was made.")
    return _whole(folder, manifest, whose)


def _whole(folder: Path, manifest: dict[str, Any], whose: str) -> Store:
    try:
        sizes = {name: (folder / name).stat().st_size for name in (WEIGHTS, INDEX)}
        index = sha256_of(folder / INDEX)
    except OSError as error:
        raise StoreError(f"{whose} is not whole: {error.strerror}.") from None
    for name, size in sizes.items():
        wanted = manifest["files"][name]["bytes"]
        if size != wanted:
            raise StoreError(f"{whose} is damaged: {name} has {size:,} bytes instead of {wanted:,}.")
    if index != manifest["files"][INDEX]["sha256"]:
        raise StoreError(f"{whose} is damaged: {INDEX} has different content.")
    return Store(folder, manifest)


def _is_manifest(manifest: Any) -> TypeGuard[dict[str, Any]]:
    parts = {"identity": dict, "originals": dict, "versions": dict, "files": dict, "label": str, "source": str}
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(name), of) for name, of in parts.items()):
        return False
    files = [manifest["files"].get(name) for name in (WEIGHTS, INDEX)]
    return all(isinstance(each, dict) and {"bytes", "sha256"} <= set(each) for each in files)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKERS}


def packed_bytes(found: FoundModel, settings: QuantizationSettings) -> int:
    """About so many bytes a base takes in these bits, by the shapes in its files' headers."""
    a_number = {4: 0.5 + (0.0159 if settings.double else 0.0625), 8: 1.0, 16: 2.0}[settings.bits]
    packed = sum(each.elements for each in found.tensors if each.quantised or len(each.shape) == 3)
    return int(packed * a_number + (found.parameters - packed) * 2)


def wants_store(found: FoundModel, settings: QuantizationSettings, stores: Path) -> bool:
    """Whether a store of this base is worth its place. Raises StoreError where there is no room for it."""
    forced = os.environ.get(ENVIRONMENT, "")
    if forced == "always":
        return True
    size = packed_bytes(found, settings)
    if forced == "never" or settings.bits == 16 or size < MIN_BYTES:
        return False
    free = shutil.disk_usage(stores).free
    if free < size + LEAVE_BYTES:
        raise StoreError(
            f"There is no room on the disk for a quantised copy of {found.label}, which would make later loads faster: "
            f"it takes {show_bytes(size)}, and {show_bytes(free)} are free, of which {show_bytes(LEAVE_BYTES)} are "
            f"left to runs."
        )
    return True


@contextmanager
def making(stores: Path, key: StoreKey, report: Callable[[str], None] = _NOTHING) -> Iterator[Path | None]:
    """A folder to make the store with that key in; where another process makes it meanwhile, None once that is over.

    When the block ends well, what is in the folder becomes the store, in the place of one that could not be used.
    Where it fails, nothing is left. Raises StoreError where the disk is full or refuses, with nothing left either.
    """
    partial = _partial(stores, key.name)
    lock = try_lock(_lock_file(stores, key.name))
    if lock is None:
        report(f"Another process is keeping a quantised copy of {key.label}: waiting for it.")
        lock = try_lock(_lock_file(stores, key.name), PATIENCE_SECONDS)
    if lock is None:
        raise StoreError(f"Another process has been keeping a quantised copy of {key.label} for an hour.")
    try:
        if _is_usable(stores, key):
            yield None
            return
        sweep(stores, but=key.name)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        _put_in_place(stores, key, partial)
    except OSError as error:
        if not is_disk_full(error):
            raise StoreError(
                f"No quantised copy of {key.label} can be kept: {error.strerror or type(error).__name__}."
            ) from None
        raise StoreError(
            f"The disk became full while a quantised copy of {key.label} was written, and what there was of it was "
            f"deleted. Free some space on the disk of {stores}."
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        lock.release()


def _is_usable(stores: Path, key: StoreKey) -> bool:
    with contextlib.suppress(StoreError):
        return find_store(stores, key) is not None
    return False


def write_manifest(folder: Path, key: StoreKey, sha256: str) -> None:
    """Flush the store in `folder`, whose weights have that hash, and write its manifest, last. Raises OSError."""
    weights, index = folder / WEIGHTS, folder / INDEX
    files = {
        WEIGHTS: {"bytes": weights.stat().st_size, "sha256": sha256},
        INDEX: {"bytes": index.stat().st_size, "sha256": sha256_of(index)},
    }
    manifest = {
        "identity": key.identity,
        "originals": key.originals,
        "label": key.label,
        "source": key.source,
        "bits": key.identity["bits"],
        "versions": _versions(),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": files,
    }
    write_json(folder / MANIFEST, manifest)
    flush_folder(folder)


def _put_in_place(stores: Path, key: StoreKey, partial: Path) -> None:
    final = stores / key.name
    if final.exists():
        delete_store(stores, key.name)
    move(partial, final)
    flush_folder(stores)


def delete_store(stores: Path, name: str) -> int:
    """Delete the store, or what a crash left of it. Returns the bytes that are free now.

    Raises StoreError where there is none with that key, or where it is in use and the system keeps it (Windows).
    """
    folders = (stores / name, _partial(stores, name)) if _KEY.fullmatch(name) else ()
    folder = next((each for each in folders if each.is_dir()), None)
    if folder is None:
        raise StoreError(f"There is no quantised copy with the key {name[:64]!r}. `models stores` lists them.")
    if folder == _partial(stores, name) and _is_being_made(stores, name):
        raise StoreError("This quantised copy is being made. Wait for that, or stop the run or the chat that makes it.")
    size, away = _bytes_in(folder), stores / f".deleted-{name}-{uuid.uuid4().hex[:8]}"
    try:
        move(folder, away, seconds=1.0)  # renamed first: half a store would be found as a damaged one
    except PermissionError:
        raise StoreError("This quantised copy is in use. Close the chat or wait for the run that uses it.") from None
    shutil.rmtree(away, ignore_errors=True)
    return size


def _is_being_made(stores: Path, name: str) -> bool:
    lock = try_lock(_lock_file(stores, name))
    if lock is not None:
        lock.release()
    return lock is None


def verify_store(store: Store) -> None:
    """Read all of a store and compare it with its manifest. Raises StoreError where it is not what was written."""
    for name in (WEIGHTS, INDEX):
        if sha256_of(store.folder / name) != store.manifest["files"][name]["sha256"]:
            raise StoreError(
                f"The quantised copy of {store.label} is damaged: {name} has different content. Delete it."
            )


def stored(stores: Path, name: str) -> Store:
    """The store with the key `name`. Raises StoreError where there is none, or it is not whole."""
    folder = stores / name
    manifest = read_json(folder / MANIFEST) if _KEY.fullmatch(name) else None
    if not _is_manifest(manifest):
        raise StoreError(f"There is no quantised copy with the key {name[:64]!r}. `models stores` lists them.")
    return _whole(folder, manifest, f"The quantised copy of {manifest['label']}")


def list_stores(stores: Path) -> list[StoreInfo]:
    """All stores and what crashes left of some, the newest first."""
    folders = [each for each in stores.iterdir() if each.is_dir() and not each.name.startswith(".deleted-")]
    return sorted(map(_info, folders), key=lambda each: each.made_at, reverse=True)


def _info(folder: Path) -> StoreInfo:
    manifest, name = read_json(folder / MANIFEST), folder.name.removeprefix(".making-")
    size = _bytes_in(folder)
    if not _is_manifest(manifest) or folder.name != name:
        return StoreInfo(name, "unfinished", None, size, "", False, False)
    whole = all((folder / each).is_file() for each in (WEIGHTS, INDEX))
    bits, made_at = manifest.get("bits"), str(manifest.get("made_at", ""))
    return StoreInfo(name, manifest["label"], bits, size, made_at, whole, _original_is_here(manifest))


def _original_is_here(manifest: dict[str, Any]) -> bool:
    """Whether the base's weight files are where they were; nobody is asked over the network."""
    source, weights = manifest["source"], dict(manifest["identity"]["weights"])
    commit = weights.pop("commit", None)
    cached = cache_folder() / f"models--{source.replace('/', '--')}" / "snapshots" / str(commit)
    folder = Path(source) if commit is None else cached
    return all((folder / name).is_file() for name in weights)


def sweep(stores: Path, but: str = "") -> None:
    """Remove what crashes and deletions left, but not what another process is making, nor the store named `but`."""
    for folder in stores.glob(".deleted-*"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in stores.glob(".making-*"):
        name = folder.name.removeprefix(".making-")
        lock = try_lock(_lock_file(stores, name)) if name != but else None
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()


def _partial(stores: Path, name: str) -> Path:
    return stores / f".making-{name}"


def _lock_file(stores: Path, name: str) -> Path:
    return stores / f".{name}.lock"


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
