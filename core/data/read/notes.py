"""What a reader notices without stopping: guessed encodings, garbled letters, names that were repeated."""

from dataclasses import replace

from core.data.conversation import Finding, Severity
from core.data.findings import ROWS_LISTED

_OF_ROWS: dict[str, tuple[Severity, str, str]] = {
    "mojibake": (
        "warning",
        "Characters are garbled or lost, such as 'Ã©' or '\ufffd' for 'é': the text was once read in the wrong "
        "encoding.",
        "Set the encoding; if the file itself contains them, export it again from its source.",
    ),
    "duplicate-key": (
        "warning",
        "An object has the same key twice; the last value was used, as JSON readers do.",
        "Rename one of them if both are needed.",
    ),
    "not-a-number": (
        "note",
        "NaN or Infinity appears in place of a value; it was read as empty.",
        "Nothing to do unless that column matters.",
    ),
    "stray-return": (
        "note",
        "The column names or a cell contain a lone carriage return; it was removed from names and read as a line "
        "break in cells.",
        "Nothing to do. To avoid this note, save the file with one kind of line break.",
    ),
}


class Notes:
    """Findings in the making. A reader marks a code before it gives out the row that shows it.

    `split` is the key under which the rows that come next stand, where one file holds several splits.
    """

    def __init__(self) -> None:
        self.split: str | None = None
        self.waiting: set[str] = set()
        self._of_opening: list[Finding] = []
        self._of_reading: dict[tuple[str, str], Finding] = {}
        self._of_rows: dict[str, Finding] = {}

    def start(self) -> None:
        """Forget what an earlier reading noticed; what was noticed when the source was opened stays."""
        self.waiting.clear()
        self._of_reading.clear()
        self._of_rows.clear()

    def mark(self, code: str) -> None:
        """The row that is given out next shows `code`."""
        self.waiting.add(code)

    def settle(self, row: int) -> None:
        """The marks that wait belong to `row`, counted from 1 over the whole source."""
        for code in self.waiting:
            severity, message, mend = _OF_ROWS[code]
            found = self._of_rows.setdefault(code, Finding(code, severity, message, mend))
            if len(found.rows) < ROWS_LISTED:
                found.rows.append(row)
            self._of_rows[code] = replace(found, count=found.count + 1)
        self.waiting.clear()

    def on_opening(self, code: str, severity: Severity, message: str, mend: str) -> None:
        """Something about a whole file, noticed before its rows are read."""
        self._of_opening.append(Finding(code, severity, message, mend))

    def on_reading(self, code: str, severity: Severity, message: str, mend: str) -> None:
        """Something about a whole file, noticed while its rows are read; said once."""
        self._of_reading[code, message] = Finding(code, severity, message, mend)

    def findings(self) -> list[Finding]:
        """Everything noticed so far."""
        return [*self._of_opening, *self._of_reading.values(), *self._of_rows.values()]
