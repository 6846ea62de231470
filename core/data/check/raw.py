"""Rows as they stand in the file, found again one at a time."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

from core.data.conversation import Row, Unreadable
from core.data.read import open_source
from core.data.row_groups import Gatherer
from core.errors import DataError
from core.settings import DataSettings

LONGEST_SHOWN = 20_000
FIRST_ROWS = 1000
_PATIENCE_SECONDS = 1.0
_KEPT = 200
_TOO_FAR = "This row is far into the file and was not reached within a second. Open it again to continue reading."


class RawRows:
    """Looks rows up by their number. A later one is read on to; what was just read is kept."""

    def __init__(self, path: Path, settings: DataSettings) -> None:
        self._path, self._settings = path, settings
        self._kept: dict[int, Row | Unreadable] = {}
        self._rows: Iterator[Row | Unreadable] = iter(())
        self._at = 0

    def show(self, number: int) -> str:
        """Row `number` as JSON, shortened; a sentence where it cannot be had within a second."""
        try:
            row = self._find(number)
        except DataError as error:
            return str(error)
        if row is None:
            return _TOO_FAR
        if isinstance(row, Unreadable):
            return row.reason
        text = json.dumps(row, ensure_ascii=False, indent=1, default=str)
        return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} …"

    def first(self) -> list[Row]:
        """The first rows that can be read."""
        rows = (row for _, row in zip(range(FIRST_ROWS), self._open(), strict=False))
        return [row for row in rows if not isinstance(row, Unreadable)]

    def _open(self) -> Iterator[Row | Unreadable]:
        split_rows = open_source(self._path, self._settings.encoding).split_rows()
        return (row for row, _, _ in Gatherer(self._settings).rows(split_rows))

    def _find(self, number: int) -> Row | Unreadable | None:
        if number in self._kept:
            return self._kept[number]
        if number <= self._at or self._at == 0:
            self._rows, self._at, self._kept = self._open(), 0, {}
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for row in self._rows:
            self._at += 1
            self._kept[self._at] = row
            if len(self._kept) > _KEPT:
                del self._kept[self._at - _KEPT]
            if self._at == number:
                return row
            if time.monotonic() > deadline:
                return None
        return None
