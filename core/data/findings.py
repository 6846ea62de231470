"""From rows counted under a code to what a person reads: the code's sentences, with the number of rows in them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.data.conversation import Finding, Severity

ROWS_LISTED = 1000
EXAMPLES = 3
_DIFFERENT_EXAMPLES = 50


@dataclass(frozen=True)
class Rule:
    """One code: its sentences take `{rows}` ("12 rows") and verbs that agree: `{are}`, `{have}`, `{s}`, `{es}`."""

    severity: Severity
    message: str
    mend: str

    def finding(self, code: str, rows: list[int], count: int, among: str = "", **details: object) -> Finding:
        """A finding with its sentences written out; `rows` are the first of `count`."""
        one = count == 1
        words: dict[str, object] = {
            "rows": f"{count:,} {'row' if one else 'rows'}{among}",
            "they": "it" if one else "they",
            "them": "it" if one else "them",
            "are": "is" if one else "are",
            "have": "has" if one else "have",
            "s": "s" if one else "",
            "es": "es" if one else "",
            "count": f"{count:,}",
        }
        message, mend = (text.format(**words | details) for text in (self.message, self.mend))
        return Finding(code, self.severity, message, mend, rows, count)


class Hits:
    """In which rows each code of `rules` stands: counted exactly, four bytes a row, with the commonest examples."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = rules
        self._rows: dict[str, array[int]] = {}
        self._examples: dict[str, Counter[str]] = {}

    def add(self, code: str, row: int, example: str | None = None) -> None:
        """Code `code` stands in `row`; said twice of the row that came last, it counts once."""
        rows = self._rows.setdefault(code, array("i"))
        if not rows or rows[-1] != row:
            rows.append(row)
        if example is not None:
            examples = self._examples.setdefault(code, Counter())
            if example in examples or len(examples) < _DIFFERENT_EXAMPLES:
                examples[example] += 1

    def extend(self, code: str, rows: Iterable[int]) -> None:
        """Code `code` stands in all of `rows`, in rising order."""
        self._rows.setdefault(code, array("i")).extend(rows)

    def rows(self, code: str) -> array[int]:
        """Every row with `code`, in rising order."""
        return self._rows.get(code, array("i"))

    def finding(self, code: str, among: str = "", counted: bool = False, **details: object) -> Finding | None:
        """The finding of one code, None where it stands nowhere.

        `details` fill its sentence, `among` says where rows were looked for if not in all. With `counted`, each
        example comes with its number of rows.
        """
        rows = self.rows(code)
        if not rows:
            return None
        examples = self._examples.get(code, Counter()).most_common(EXAMPLES)
        shown = [f"{example} ({count:,})" if counted else example for example, count in examples]
        details = {"example": shown[0] if shown else "", "examples": _joined(shown), **details}
        return self._rules[code].finding(code, rows.tolist()[:ROWS_LISTED], len(rows), among, **details)


def _joined(examples: list[str]) -> str:
    if len(examples) < 2:
        return "".join(examples)
    return f"{', '.join(examples[:-1])} and {examples[-1]}"
