"""Where everything that a person makes is kept: one folder, the workspace."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
PRESETS = ROOT / "presets"
Result = TypeVar("Result")
# For so long a scanner may keep a fresh file open, on Windows.
SCAN_SECONDS = 10.0


@dataclass(frozen=True)
class Workspace:
    """The folders of one workspace. They are made when first asked for."""

    path: Path

    @classmethod
    def open(cls, data_dir: str | os.PathLike[str] | None) -> Workspace:
        """The workspace at `data_dir`, else at NIBBLE_DATA_DIR, else `workspace/` beside launch.py."""
        chosen = data_dir or os.environ.get("NIBBLE_DATA_DIR") or ROOT / "workspace"
        return cls(Path(chosen).expanduser().resolve())

    def _folder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def runs(self) -> Path:
        """One folder a run."""
        return self._folder("runs")

    @property
    def datasets(self) -> Path:
        """One folder a dataset, named by the hash of its content."""
        return self._folder("datasets")

    @property
    def arena(self) -> Path:
        """Votes, and the answers that were prepared for voting."""
        return self._folder("arena")

    @property
    def exports(self) -> Path:
        """Where exports go that were asked for without a place."""
        return self._folder("exports")

    @property
    def adapters(self) -> Path:
        """Adapters from elsewhere, one folder each."""
        return self._folder("adapters")

    @property
    def quantised(self) -> Path:
        """Bases in the bits that they are loaded in, one folder each: core/basemodel/stores.py."""
        return self._folder("quantised")

    @property
    def state(self) -> Path:
        """What the app itself remembers: settings, the running server, locks."""
        return self._folder("state")


def as_path(text: str) -> Path | None:
    """The path that a person typed, None where no file can have that name: too long, a NUL in it, no such home.

    One on another machine is none: Windows would hand the person's password to it by looking there.
    """
    if text.strip().startswith(("//", "\\\\", "/\\", "\\/")):
        return None
    try:
        path = Path(text.strip()).expanduser()
        return path if text.strip() and path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


def patiently(action: Callable[[], Result], seconds: float = 1.0) -> Result:
    """Do `action`, again for so long while Windows forbids it because another process has the file open."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def move(folder: Path, to: Path, seconds: float = SCAN_SECONDS) -> None:
    """Rename a folder. On Windows that waits until virus scanners have let go of the files that were just written."""
    patiently(lambda: folder.rename(to), seconds)


def flush_folder(folder: Path) -> None:
    """Flush the folder itself, so that a rename in it outlives a power cut. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[IO[str]]:
    """A text file that replaces `path` in one step: a reader sees the old file or the new one, never a half."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        patiently(lambda: Path(temporary).replace(path))
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value`, in one step."""
    with replacing(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=1)


def read_json(path: Path) -> Any:
    """The value in `path`, or None where there is no such file or it is not whole JSON."""
    try:
        return json.loads(patiently(lambda: path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, RecursionError):  # no JSON, no text, or brackets without end
        return None


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
