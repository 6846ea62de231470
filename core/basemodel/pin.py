"""Holds a base in a folder to what it was when its run began, as a commit does for one of the Hub. Imports no torch.

An adapter works over one base only, and replaced files would go unnoticed. The run's base.json keeps of each file: its
size and times, which show cheaply that it was not touched; the hash of a sample, which detects other weights in
milliseconds; and the hash of the whole file, which for large files is computed while the run trains. Times that differ
prove nothing: then the contents decide.
"""

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.basemodel.find import weight_files
from core.basemodel.hub import is_setting
from core.workspace import read_json, sha256_of, write_json

FILE = "base.json"
Pinned = dict[str, dict[str, Any]]
# Up to here a file is hashed whole at once: a tenth of a second. Of larger ones a sample is.
WHOLE_BYTES = 64 * 2**20
_SAMPLES, SAMPLE_BYTES = 64, 2**16
_BLOCK = 2**22
# While a run trains, hashing rests three times as long as it works.
_REST = 3.0
# What has no part in training: how the base's makers would have it answer.
_LEFT_OUT = ("generation_config.json",)


@dataclass(frozen=True)
class Change:
    """A file that is not what it was; `what` ends the sentence that begins with its name."""

    name: str
    what: str

    def sentence(self, whose: str) -> str:
        """For a person, with the way out; `whose` base it is: 'run 2026…'."""
        return (
            f"The base model of {whose} has changed since the run began: {self.name} {self.what}. Restore it, or "
            f"start a new run."
        )


def pin_of(folder: Path, known: Pinned | None = None) -> Pinned:
    """What the base in `folder` is now, file by file. What is `known` of untouched files is taken over."""
    pinned: Pinned = {}
    for name, file in _files(folder).items():
        before, stamp = (known or {}).get(name), _stamp(file)
        if before is not None and before["stamp"] == stamp:
            pinned[name] = before
            continue
        sample = _sample(file)
        pinned[name] = {"stamp": stamp, "sample": sample, "sha256": sample if stamp[0] <= WHOLE_BYTES else None}
    return pinned


def stamp_of(folder: Path) -> tuple[Any, ...]:
    """A cheap stamp that changes when any file of the base in `folder` is touched; empty where the folder is gone."""
    try:
        return tuple((name, *_stamp(file)) for name, file in _files(folder).items())
    except OSError:
        return ()


def change_of(folder: Path, pinned: Pinned, report: Callable[[str], None] | None = None) -> Change | None:
    """The first file of the base in `folder` that is not what was `pinned`; None where all are.

    Large files are read whole only if they were touched, and where `report` can tell somebody who waits.
    """
    files = _files(folder)
    for name in sorted({*pinned, *files}):
        if name not in files:
            return Change(name, "is missing")
        if name not in pinned:
            return Change(name, "was not there")
        change = _changed(files[name], pinned[name], report)
        if change:
            return Change(name, change)
    return None


def read_pin(file: Path) -> Pinned | None:
    """What a run's base.json holds of its base's files; None where the run keeps none, or it cannot be read."""
    values = read_json(file)
    pinned = values.get("files") if isinstance(values, dict) else None
    if not isinstance(pinned, dict) or not pinned or not all(map(_is_sound, pinned.values())):
        return None
    return pinned


def write_pin(file: Path, source: str, pinned: Pinned) -> None:
    """Keep it in a run's base.json, in one step."""
    write_json(file, {"model": source, "revision": None, "files": pinned})


@contextmanager
def hashing_meanwhile(file: Path, folder: Path, known_hashes: Path) -> Iterator[None]:
    """Inside, hash the files that base.json in `file` has no whole hash of, slowly, in a thread.

    `known_hashes` is a file that keeps the hashes of untouched files for the next run over the same base.
    """
    over = threading.Event()
    thread = threading.Thread(target=_hash_all, args=(file, folder, known_hashes, over), name="base hash", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)


def _hash_all(file: Path, folder: Path, known_hashes: Path, over: threading.Event) -> None:
    if sys.platform == "linux":  # there a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    try:
        pinned, files = read_pin(file) or {}, _files(folder)
        for name in [name for name, entry in pinned.items() if entry["sha256"] is None and name in files]:
            at, stamp = files[name], pinned[name]["stamp"]
            known = _remembered(known_hashes, at, stamp)
            digest = known or _whole(at, over)
            if digest is None or _stamp(at) != stamp:
                return
            pinned[name]["sha256"] = digest
            write_json(file, {**read_json(file), "files": pinned})
            if known is None:
                _remember(known_hashes, at, stamp, digest)
    except OSError as error:  # the sample stands, and the next run over this base tries again
        print(f"The base model could not be hashed: {error}", file=sys.stderr)


def _whole(file: Path, over: threading.Event) -> str | None:
    """The hash of all of `file`, with pauses; None where it is `over` before."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while True:
            began = time.monotonic()
            block = content.read(_BLOCK)
            if not block:
                return digest.hexdigest()
            digest.update(block)
            if over.wait((time.monotonic() - began) * _REST):
                return None


def _remembered(known_hashes: Path, file: Path, stamp: list[int]) -> str | None:
    kept = read_json(known_hashes)
    entry = kept.get(str(file)) if isinstance(kept, dict) else None
    return entry["sha256"] if isinstance(entry, dict) and entry.get("stamp") == stamp else None


def _remember(known_hashes: Path, file: Path, stamp: list[int], sha256: str) -> None:
    kept = read_json(known_hashes)
    there = {name: entry for name, entry in (kept or {}).items() if Path(name).exists()}
    write_json(known_hashes, {**there, str(file): {"stamp": stamp, "sha256": sha256}})


def _files(folder: Path) -> dict[str, Path]:
    """What is loaded of a base: its weights, its config, its tokenizer and chat template; by name."""
    beside = (
        path for path in folder.iterdir() if path.is_file() and is_setting(path.name) and path.name not in _LEFT_OUT
    )
    return {path.name: path for path in sorted([*weight_files(folder), *beside])}


def _stamp(file: Path) -> list[int]:
    """Size, when content and entry were last changed, and which file it is on its disk."""
    about = file.stat()
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]


def _changed(file: Path, pinned: dict[str, Any], report: Callable[[str], None] | None) -> str:
    """What is otherwise about `file` than was `pinned`, as the end of a sentence; '' where nothing is."""
    stamp, was = _stamp(file), pinned["stamp"]
    if stamp == was:
        return ""
    if stamp[0] != was[0]:
        return f"has {stamp[0]:,} bytes instead of {was[0]:,}"
    other = "has different content"
    if _sample(file) != pinned["sample"]:
        return other
    if stamp[0] <= WHOLE_BYTES or pinned["sha256"] is None or report is None:
        return ""
    report(f"{file.name} was modified since the run began: comparing its content.")
    return "" if sha256_of(file) == pinned["sha256"] else other


def _sample(file: Path) -> str:
    """The hash of a small file; of a large one, of pieces from all over it, its header and its end among them."""
    size = file.stat().st_size
    if size <= WHOLE_BYTES:
        return sha256_of(file)
    digest = hashlib.sha256()
    with file.open("rb") as content:
        for number in range(_SAMPLES):
            content.seek((size - SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(content.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _is_sound(entry: Any) -> bool:
    """Whether this is what is kept of a file, as far as one can tell."""
    if not isinstance(entry, dict) or not {"stamp", "sample", "sha256"} <= set(entry):
        return False
    stamp = entry["stamp"]
    return isinstance(stamp, list) and len(stamp) == 4 and all(isinstance(each, int) for each in stamp)
