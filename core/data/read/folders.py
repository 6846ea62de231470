"""The files of a dataset's folder: those that lie in it, and those of folders below that are its splits."""

from pathlib import Path

from core.data.read.splits import use_of

_WRAPPERS = {"data", "dataset"}  # as on the Hub: data/train-00000-of-00001.parquet, data/validation/…


def files_below(folder: Path, deepest: int = 3) -> tuple[dict[str, Path], list[str]]:
    """The folder's files by their names in name order, 'train/0.parquet' for one in a folder; other folders' names.

    Folders are looked into where their names say that they are splits ('train', 'validation'), or where one called
    'data' is all there is. Raises OSError.
    """
    files, folders = _listed(folder)
    if not deepest:
        return files, folders
    inside = _splits(folders)
    for each in folders:
        if each in inside or (each.lower() in _WRAPPERS and not inside and _holds_splits(folder / each, len(folders))):
            below, further = files_below(folder / each, deepest - 1)
            files |= {f"{each}/{name}": path for name, path in below.items()}
            folders = [name for name in folders if name != each] + [f"{each}/{name}" for name in further]
    return dict(sorted(files.items())), folders


def _listed(folder: Path) -> tuple[dict[str, Path], list[str]]:
    entries = sorted(each for each in folder.iterdir() if not each.name.startswith((".", "__")))
    files = {each.name: each for each in entries if not each.is_dir()}
    return files, [each.name for each in entries if each.is_dir() and not each.is_symlink()]


def _splits(names: list[str]) -> set[str]:
    """The folders that are splits; a lone 'test' is no split, for there is none to train on."""
    uses = {name: use_of(name) for name in names}
    return {name for name, use in uses.items() if use} if "train" in uses.values() else set()


def _holds_splits(folder: Path, folders: int) -> bool:
    files, below = _listed(folder)
    return folders == 1 and bool(files or _splits(below))
