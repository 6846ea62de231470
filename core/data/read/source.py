"""What a reader hands out: a source of rows, the files it is made of, and what was noticed on the way."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from core.data.conversation import Finding, Row, Unreadable
from core.data.read.blob import Progress
from core.data.read.notes import Notes
from core.data.read.part import Part
from core.data.read.splits import SplitRow, Use, use_of
from core.errors import DataError


@dataclass
class FileInfo:
    """One file as it was read. `encoding` is empty for a binary kind; `rows` is known after reading.

    `use` is what it is for by its name.
    """

    name: str
    kind: str
    encoding: str
    evidence: str
    rows: int = 0
    use: Use = "train"


@dataclass
class Source:
    """One dataset: a file, or several that are read one after another. `bytes` is its size on disk."""

    name: str
    bytes: int
    files: list[FileInfo]
    parts: list[Part] = field(repr=False)
    notes: Notes = field(repr=False)

    def rows(self, progress: Progress | None = None) -> Iterator[Row | Unreadable]:
        """All rows in order, those of every split; can be called again. Arguments and errors as for `split_rows`."""
        return (row for row, _, _ in self.split_rows(progress))

    def split_rows(self, progress: Progress | None = None) -> Iterator[SplitRow]:
        """All rows in order, each with what it is for and what says so: its file, or its key within that.

        `progress` gets the bytes of the disk consumed so far, now and then. Raises DataError where a file cannot be
        read on, unless it is left alone anyway, and where there is no row at all.
        """
        self.notes.start()
        number, before = 0, 0
        for part, info in zip(self.parts, self.files, strict=True):
            info.rows = 0
            for row in self._of_part(part, info, _from(before, progress)):
                number += 1
                info.rows += 1
                if self.notes.waiting:
                    self.notes.settle(number)
                if len(self.parts) > 1 and isinstance(row, Unreadable):
                    row = Unreadable(f"{part.name}, {row.reason}")
                key = self.notes.split
                if key:
                    yield row, use_of(key) or "train", f"{key!r} in {part.name}"
                else:
                    yield row, info.use, part.name
            before += part.bytes
        if number == 0:
            raise DataError(f"{self.name} contains no rows. It should have one conversation per row.")
        if progress:
            progress(self.bytes)

    def _of_part(self, part: Part, info: FileInfo, progress: Progress) -> Iterator[Row | Unreadable]:
        self.notes.split = None
        try:
            yield from part.rows(self.notes, progress)
        except DataError:
            if info.use != "left_alone":
                raise

    def findings(self) -> list[Finding]:
        """What was noticed; whole once `rows()` has been read to its end."""
        return self.notes.findings()


def _from(start: int, progress: Progress | None) -> Progress:
    """What one part reports to: `progress` of the whole source, of which `start` bytes came before it."""
    return lambda consumed: progress(start + consumed) if progress else None
