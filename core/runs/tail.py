"""Reads a file of lines as it grows, each line once."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO


@dataclass
class Tail:
    """Reads what was appended to a `.jsonl` file since the last call: a tick costs only what is new."""

    path: Path
    position: int = 0
    unreadable: int = 0
    restarts: int = 0
    waiting_bytes: int = 0
    _rest: bytes = field(default=b"", repr=False)
    _file: int | None = field(default=None, repr=False)

    def read(self, most_bytes: int | None = None) -> list[dict[str, Any]]:
        """The new whole lines, of at most `most_bytes`; `waiting_bytes` says what is left for the next call.

        A line cut off by a crash waits for its end; a damaged one is counted. A file that was replaced or cut back,
        as a resume does it, is read from its start again; `restarts` counts that.
        """
        try:
            with self.path.open("rb") as handle:
                self._look_at(handle)
                fresh = handle.read(-1 if most_bytes is None else most_bytes)
                self.waiting_bytes = max(0, os.fstat(handle.fileno()).st_size - handle.tell())
        except FileNotFoundError:
            self.waiting_bytes = 0
            return []
        self.position += len(fresh)
        *whole, self._rest = (self._rest + fresh).split(b"\n")
        return self._parse(whole)

    def _look_at(self, handle: BinaryIO) -> None:
        found = os.fstat(handle.fileno())
        if found.st_size < self.position or (self._file is not None and found.st_ino != self._file):
            self.position, self._rest = 0, b""
            self.restarts += 1
        self._file = found.st_ino
        handle.seek(self.position)

    def _parse(self, lines: list[bytes]) -> list[dict[str, Any]]:
        """All at once, which is the fast way; line by line where one of them is damaged."""
        written = [line for line in lines if line]
        try:
            together = json.loads(b"[" + b",".join(written) + b"]")
        except (ValueError, RecursionError):
            return self._parse_each(written)
        if len(together) != len(written):  # halves that happen to make a whole
            return self._parse_each(written)
        return [row for row in together if isinstance(row, dict)]

    def _parse_each(self, lines: list[bytes]) -> list[dict[str, Any]]:
        rows = []
        for line in lines:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                self.unreadable += 1
                continue
            if isinstance(row, dict):
                rows.append(row)
        return rows
