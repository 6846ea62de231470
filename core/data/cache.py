"""Where prepared data is kept in a workspace: an entry a key, whole or not there, all of them within a bound."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.workspace import sha256_of

# All entries together; those that were used longest ago go first.
MOST_BYTES = 5 * 2**30
# An entry is kept only where so many times its size is free: checkpoints need the room more.
_FREE_TIMES = 10
_LEFT_BEHIND_SECONDS = 24 * 3600
_ROWS, _SUM = "rows.arrow", "sha256"


@dataclass(frozen=True)
class PreparedCache:
    """Entries in `folder`, each an Arrow file of one batch and its SHA-256. It may be deleted at any time.

    Nothing here raises: an entry that is damaged is deleted, and one that cannot be kept is not.
    """

    folder: Path
    most_bytes: int = MOST_BYTES

    @classmethod
    def beside(cls, kept: Path) -> PreparedCache | None:
        """That of the workspace in which `kept` is a dataset's copy; None for a file that lies elsewhere."""
        datasets = kept.parent.parent
        return cls.of(datasets.parent) if datasets.name == "datasets" else None

    @classmethod
    def of(cls, workspace: Path) -> PreparedCache:
        """That of the workspace at this path."""
        return cls(workspace / "cache" / "prepared")

    def take(self, key: str) -> Any | None:
        """The entry's record batch, mapped from the disk; None where it is not there."""
        import pyarrow as pa

        entry = self.folder / key
        if not entry.is_dir():
            return None
        try:
            if (entry / _SUM).read_text() != sha256_of(entry / _ROWS):
                raise ValueError
            batch = pa.ipc.open_file(pa.memory_map(str(entry / _ROWS))).get_batch(0)
        except (OSError, ValueError, pa.ArrowException):
            shutil.rmtree(entry, ignore_errors=True)
            return None
        with suppress(OSError):
            os.utime(entry)
        return batch

    def put(self, key: str, batch: Any) -> None:
        """Keep an entry, written beside and renamed; make room for it. `batch` is an Arrow record batch."""
        import pyarrow as pa

        with suppress(OSError, pa.ArrowException):
            self.folder.mkdir(parents=True, exist_ok=True)
            room = shutil.disk_usage(self.folder).free
            if batch.nbytes > self.most_bytes or batch.nbytes * _FREE_TIMES > room:
                return
            with self._beside() as made:
                with pa.ipc.new_file(str(made / _ROWS), batch.schema) as file:
                    file.write_batch(batch)
                (made / _SUM).write_text(sha256_of(made / _ROWS))
                made.replace(self.folder / key)
            self._bound(key)

    @contextmanager
    def _beside(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix=".new-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _bound(self, kept: str) -> None:
        """Delete what was left behind by a crash, and of the entries but `kept` those that are too many."""
        entries = sorted(self.folder.iterdir(), key=lambda entry: entry.stat().st_mtime, reverse=True)
        total = _size(self.folder / kept)
        for entry in entries:
            if entry.name.startswith("."):
                if time.time() - entry.stat().st_mtime > _LEFT_BEHIND_SECONDS:
                    shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != kept:
                total += _size(entry)
                if total > self.most_bytes:
                    shutil.rmtree(entry, ignore_errors=True)


def _size(entry: Path) -> int:
    return sum(file.stat().st_size for file in entry.iterdir())
