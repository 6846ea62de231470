"""The workspace's own copies of datasets, named by the hash of their content: an upload's files go away."""

import re
import shutil
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from core.data.changes import sha256_of_all
from core.data.read.folders import files_below
from core.data.samples import find_sample
from core.errors import DataError
from core.workspace import SCAN_SECONDS, Workspace, as_path, patiently, sha256_of

_UNSAFE = re.compile(r"[^\w.\- ]+")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)", re.IGNORECASE)  # on Windows
_LONGEST = 150  # bytes of a name; the systems allow 255


@dataclass(frozen=True)
class StoredDataset:
    """A dataset's copy in the workspace, a file or a folder of files; its SHA-256; and the name people know it by."""

    path: Path
    sha256: str
    name: str


def find_dataset(path: str) -> Path:
    """What `data.path` means: a sample's file, a file, or a folder of files. Raises DataError where there is none."""
    sample = find_sample(path)
    if sample is not None:
        return sample.path
    file = as_path(path)
    if file is None:
        raise DataError(f"There is no dataset {path[:200]!r}: it is neither a sample nor a file. Check the path.")
    return file.resolve()


def keep(workspace: Workspace, source: Path, name: str | None = None) -> StoredDataset:
    """Copy `source`, a file or a folder of files, into the workspace, unless its content is there already.

    The copy is written beside its final name and renamed, so that a crash leaves no half dataset.
    Raises DataError where it cannot be read or the disk is full.
    """
    if source.is_dir():
        files = [(file, each) for each, file in files_below(source)[0].items() if file.is_file()]
        return keep_folder(workspace, files, name or source.name)
    name = safe_name(name or source.name)
    try:
        sha256 = sha256_of(source)
        return StoredDataset(_copied(workspace, sha256, name, source), sha256, name)
    except OSError as error:
        raise _not_copied(source.name, error) from None


def keep_several(workspace: Workspace, files: list[tuple[Path, str]]) -> StoredDataset:
    """Copy several `(file, its name)` into one folder, which is one dataset; one file alone is kept as `keep` does."""
    if len(files) == 1:
        return keep(workspace, *files[0])
    files = sorted(((file, safe_name(name)) for file, name in files), key=lambda each: each[1])
    return keep_folder(workspace, files, f"{Path(files[0][1]).stem} and {len(files) - 1} more")


def keep_folder(workspace: Workspace, files: list[tuple[Path, str]], name: str) -> StoredDataset:
    """Copy `files` into a folder called `name`, whose hash is that of their names and contents.

    A name may say in which folder the file lies: 'train/0.parquet'. Raises DataError as `keep` does.
    """
    named = _apart([(file, "/".join(safe_name(part) for part in each.split("/"))) for file, each in files])
    name = safe_name(name)
    try:
        sha256 = sha256_of_all(named)
        return StoredDataset(_copied(workspace, sha256, name, named), sha256, name)
    except OSError as error:
        raise _not_copied(name, error) from None


def kept_datasets(workspace: Workspace) -> list[Path]:
    """Every dataset that is kept, a file or a folder of several, newest first."""
    kept = [each for each in workspace.datasets.glob("[!.]*/*") if not each.name.startswith(".")]
    return sorted(kept, key=lambda each: each.lstat().st_mtime, reverse=True)


def safe_name(name: str) -> str:
    """`name` as a file's name on any system; letters of any language stay."""
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", name)).strip(". ")
    while len(name.encode()) > _LONGEST:  # its end holds the suffix
        name = name[1:]
    name = name.strip(". ") or "dataset"
    return f"_{name}" if _RESERVED.match(name) else name


def _apart(files: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """The files with names that differ, also where a system does not tell small letters from capital ones."""
    taken: set[str] = set()
    apart = []
    for file, name in files:
        free, number = name, 2
        while free.casefold() in taken:
            folder, slash, last = name.rpartition("/")
            free, number = f"{folder}{slash}{number} {last}", number + 1
        taken.add(free.casefold())
        apart.append((file, free))
    return apart


def _copied(workspace: Workspace, sha256: str, name: str, source: Path | list[tuple[Path, str]]) -> Path:
    """Where the copy lies, made if it is not there: of one file, or of several in a folder."""
    kept = workspace.datasets / sha256[:16] / name
    if kept.exists():
        return kept
    kept.parent.mkdir(exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=kept.parent, prefix=".copy-"))
    try:
        for file, called in source if isinstance(source, list) else [(source, name)]:
            (temporary / called).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, temporary / called)
        _replace(temporary if isinstance(source, list) else temporary / name, kept)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return kept


def _replace(made: Path, kept: Path) -> None:
    """Give `made` its final name; a copy of the same content that another process finished first is as good."""

    def replace() -> None:
        try:
            made.replace(kept)
        except OSError:
            if not kept.exists():
                raise

    patiently(replace, SCAN_SECONDS)


def _not_copied(name: str, error: OSError) -> DataError:
    return DataError(f"{name} cannot be copied into the workspace: {error.strerror or error}.")
