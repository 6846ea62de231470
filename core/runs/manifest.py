"""What makes a checkpoint whole: a manifest with the size and SHA-256 of every file, written last. Imports no torch."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from core.untrusted.paths import is_plain
from core.workspace import flush_folder, move

MANIFEST = "manifest.json"
BEST = "best"  # the folder of a run that holds the best of its adapters


def write_manifest(folder: Path, step: int) -> None:
    """Flush every file in `folder` to the disk and list them with size and SHA-256; the manifest comes last."""
    files = flush_all(folder)
    with (folder / MANIFEST).open("w", encoding="utf-8") as handle:
        json.dump({"step": step, "files": files}, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
    flush_folder(folder)


def flush_all(folder: Path) -> dict[str, dict[str, Any]]:
    """Flush everything in `folder` to the disk. Returns the `bytes` and `sha256` of each file."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb+") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
            os.fsync(handle.fileno())
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        flush_folder(inner)
    return files


def put_in_place(fresh: Path, final: Path) -> None:
    """Rename the folder `fresh` to `final`. An existing one is moved aside first: there is never half of either."""
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        move(final, old)
    try:
        move(fresh, final)
    except OSError:
        if old.exists():
            move(old, final)
        raise
    flush_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def why_invalid(folder: Path) -> str | None:
    """What is wrong with `folder`, as the end of a sentence; None where every file matches its manifest."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        listed = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except FileNotFoundError:
        return "it is incomplete (it has no manifest)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "its manifest cannot be read"
    for name, (size, digest) in listed.items():
        if not is_plain(name):
            return "its manifest names a missing file"
        try:
            with (folder / name).open("rb") as handle:
                found = os.fstat(handle.fileno()).st_size
                if found != size:
                    return f"{name} has {found:,} bytes instead of {size:,}"
                if hashlib.file_digest(handle, "sha256").hexdigest() != digest:
                    return f"{name} has been changed"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror or error})"
    return None


def is_valid(folder: Path) -> bool:
    """Whether every file in the manifest of `folder` is present and unchanged."""
    return why_invalid(folder) is None


def named_checkpoints(folder: Path) -> list[Path]:
    """All checkpoints in `folder`, whole or not, the newest first."""
    named = [path for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    return sorted(named, key=lambda path: -int(path.name))


def valid_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder` that are whole, the newest first."""
    return [path for path in named_checkpoints(folder) if is_valid(path)]


def newest_valid(folder: Path) -> tuple[Path | None, list[tuple[str, str]]]:
    """The newest whole checkpoint in `folder`, and those newer ones that are not: (step, what is wrong)."""
    passed_over: list[tuple[str, str]] = []
    for path in named_checkpoints(folder):
        wrong = why_invalid(path)
        if wrong is None:
            return path, passed_over
        passed_over.append((path.name, wrong))
    return None, passed_over
