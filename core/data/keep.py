"""The workspace's own copies of datasets, named by the hash of their content: an upload's file goes away."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from core.data.samples import find_sample
from core.errors import DataError
from core.workspace import Workspace, as_path

_UNSAFE = re.compile(r"[^\w.\- ]+")


@dataclass(frozen=True)
class Kept:
    """A dataset's copy in the workspace, its SHA-256, and the name that the person knows it by."""

    path: Path
    sha256: str
    name: str


def find_dataset(path: str) -> Path:
    """The file that `data.path` means: a sample's name, or a path. Raises DataError where there is none."""
    sample = find_sample(path)
    if sample is not None:
        return sample.path
    file = as_path(path)
    if file is None:
        raise DataError(f"There is no dataset {path[:200]!r}: neither a sample's name nor a file. Check the path.")
    return file.resolve()


def keep(workspace: Workspace, source: Path, name: str | None = None) -> Kept:
    """Copy `source` into the workspace, unless its content is there already.

    The copy is written beside its final name and renamed, so that a crash leaves no half dataset.
    """
    name = _UNSAFE.sub("_", name or source.name).strip(". ")[-80:] or "dataset"
    try:
        sha256 = _sha256(source)
        folder = workspace.datasets / sha256[:16]
        kept = folder / name
        if not kept.exists():
            folder.mkdir(exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=".copy-")
            os.close(handle)
            shutil.copyfile(source, temporary)
            Path(temporary).replace(kept)
    except OSError as error:
        raise DataError(f"{source.name} cannot be copied into the workspace: {error.strerror}.") from None
    return Kept(kept, sha256, name)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def keep_upload(workspace: Workspace, path: str, original_name: str) -> str:
    """Keep an uploaded file under the name it had on the person's machine; returns the copy's path."""
    return str(keep(workspace, Path(path), Path(original_name).name).path)


def kept_datasets(workspace: Workspace) -> list[Path]:
    """Every dataset that is kept, newest first."""
    files = [file for file in workspace.datasets.glob("*/*") if file.is_file() and not file.name.startswith(".")]
    return sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)
