"""Whether a dataset has changed: at a glance by the sizes and times of its files, exactly by their content."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from core.data.read.folders import files_below
from core.workspace import sha256_of

Fingerprint = tuple[tuple[str, int, int], ...]


def fingerprint(dataset: Path | None) -> Fingerprint:
    """Name, size and time of writing (in ns) of each file of a dataset, which is a file or a folder of files.

    Two that are equal mean: not changed. Empty where there is nothing, or nothing that can be looked at.
    """
    if dataset is None:
        return ()
    try:
        files = files_below(dataset)[0] if dataset.is_dir() else {dataset.name: dataset}
        found = [(name, file.stat()) for name, file in files.items()]
    except OSError:
        return ()
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)


def content_hash(dataset: Path) -> str:
    """The SHA-256 of a dataset's content; of a folder that of its files' names and contents. Raises OSError."""
    if not dataset.is_dir():
        return sha256_of(dataset)
    files = [file for file in dataset.rglob("*") if not file.is_dir()]
    return sha256_of_all((file, file.relative_to(dataset).as_posix()) for file in files)


def sha256_of_all(named: Iterable[tuple[Path, str]]) -> str:
    """Of several files' names and contents, in the order of their names. Raises OSError."""
    contents = [f"{sha256_of(file)} {name}" for file, name in sorted(named, key=lambda each: each[1])]
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()
