"""The splits that the data names, honoured: the rows held out, those left alone, and the finding that says so."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from core.data.conversation import Finding, LeftAlone, Row, Unreadable
from core.data.read import Source
from core.data.read.splits import SplitRow, Use, column_of_splits, is_split_name, use_of
from core.settings import DataSettings

_LISTED = 1000  # rows in a finding
_NAMED = 8  # names of each use in a sentence
_MOST_NAMES = 1000
_DONE: dict[Use, str] = {
    "train": "trained on",
    "held_out": "held out for evaluation",
    "left_alone": "not used for training or evaluation",
}


class Ranges:
    """Row numbers, added in rising order, kept as stretches: a file's rows lie together."""

    def __init__(self) -> None:
        self._starts, self._ends = array("q"), array("q")

    def add(self, row: int) -> None:
        """`row` is one of them."""
        if self._ends and self._ends[-1] == row:
            self._ends[-1] = row + 1
        else:
            self._starts.append(row)
            self._ends.append(row + 1)

    def holds(self, rows: Any) -> Any:
        """For each of `rows` whether it is one of them, as an array of truth values."""
        wanted = np.asarray(rows, dtype=np.int64)
        if not self._starts:
            return np.zeros(len(wanted), dtype=bool)
        starts, ends = np.frombuffer(self._starts, dtype=np.int64), np.frombuffer(self._ends, dtype=np.int64)
        place = np.searchsorted(starts, wanted, side="right") - 1
        return (place >= 0) & (wanted < ends[place])

    def first(self, count: int) -> list[int]:
        """The first `count` of them."""
        every = (row for start, end in zip(self._starts, self._ends, strict=True) for row in range(start, end))
        return list(islice(every, count))


class Splitter:
    """Gives out rows with those of a test split as LeftAlone, and counts what becomes of them.

    `column` is the one in which each row says its split; it is taken out of the rows. `held_out` are row numbers.
    """

    def __init__(self, source: Source, settings: DataSettings) -> None:
        self._source, self._settings = source, settings
        self._honour = settings.named_splits == "honour"
        self._column: str | None = None
        self._without_train = ""
        self._counts: Counter[tuple[str, str]] = Counter()
        self._left_alone = Ranges()
        self.held_out = Ranges()

    def look_at(self, first: Iterable[Row | Unreadable]) -> None:
        """Find a column of splits in the first rows. To be called before `rows`."""
        column = column_of_splits(row for row in first if not isinstance(row, Unreadable))
        if column is None or len({info.use for info in self._source.files}) > 1:
            return
        rows = (row for row in self._source.rows() if not isinstance(row, Unreadable))
        if any(use_of(row.get(column)) == "train" for row in rows):
            self._column = column
        else:
            self._without_train = f"the column `{column}`"

    def assigned(self, split_rows: Iterator[SplitRow]) -> Iterator[SplitRow]:
        """The rows as a column of splits says what they are for, where there is one."""
        return split_rows if self._column is None else self._by_column(split_rows, self._column)

    def _by_column(self, split_rows: Iterator[SplitRow], column: str) -> Iterator[SplitRow]:
        for row, use, name in split_rows:
            if isinstance(row, Unreadable):
                yield row, use, name
                continue
            value = row.get(column)
            if self._honour:
                row = {key: value for key, value in row.items() if key != column}
            yield row, use_of(value) or "train", f"`{column}` {str(value)[:40]!r}"

    def rows(self, split_rows: Iterable[SplitRow]) -> Iterator[Row | Unreadable]:
        """The rows, each as what becomes of it."""
        left: dict[str, LeftAlone] = {}
        last, since = ("", ""), 1  # rows of one file come together, and are counted together
        number = 0
        for number, (row, use, name) in enumerate(split_rows, start=1):
            if (use, name) != last:
                self._count(last, number - since)
                last, since = (use, name), number
            if use != "train" and self._honour:
                if use == "held_out":
                    self.held_out.add(number)
                else:
                    self._left_alone.add(number)
                    row = left.setdefault(name, LeftAlone(f"it belongs to {name}, which is not used"))
            yield row
        self._count(last, number + 1 - since)

    def _count(self, of: tuple[str, str], rows: int) -> None:
        if not rows or not of[0]:
            return
        use, name = of
        known = of in self._counts or len(self._counts) < _MOST_NAMES
        self._counts[use, name if known else "others"] += rows

    def counts(self) -> dict[str, int] | None:
        """Rows for each use, as the data names them; None where it does not, or where that is ignored."""
        if not self._honour or not self._parted():
            return None
        return {use: self._total(use) for use in _DONE}

    def _total(self, use: Use) -> int:
        return sum(count for (each, _), count in self._counts.items() if each == use)

    def findings(self) -> list[Finding]:
        """What to say of the splits, once all rows have been given out."""
        if not self._parted():
            return self._unclear()
        parts = {use: self._named(use) for use in _DONE}
        if not self._honour:
            others = " and ".join(parts[use] for use in _DONE if use != "train" and parts[use])
            message = f"The data names splits, but all are trained on, including {others}: data.named_splits is ignore."
            mend = "Set data.named_splits to honour to hold out the validation rows and leave out the test rows."
            return [Finding("named-splits-ignored", "warning", message, mend)]
        uses = "; ".join(f"{_DONE[use]}: {names}" for use, names in parts.items() if names)
        message = f"The splits named in the data are used. {uses[0].upper()}{uses[1:]}. {self._measured()}"
        mend = "Nothing to do if that is intended. To train on all of them, set data.named_splits to ignore."
        rows = self._left_alone.first(_LISTED)
        return [Finding("named-splits", "note", message, mend, rows, self._total("left_alone"))]

    def _parted(self) -> bool:
        return len({use for use, _ in self._counts}) > 1

    def _named(self, use: Use) -> str:
        names = [(name, count) for (each, name), count in self._counts.items() if each == use]
        shown = [f"{name} ({'1 row' if count == 1 else f'{count:,} rows'})" for name, count in names[:_NAMED]]
        more = f" and {len(names) - _NAMED:,} more ({sum(count for _, count in names[_NAMED:]):,} rows)"
        return ", ".join(shown) + (more if len(names) > _NAMED else "")

    def _measured(self) -> str:
        held, most = self._total("held_out"), self._settings.eval_max_rows
        if not held:
            return (
                "There is no validation split, so a share of the training rows is held out instead "
                "(data.eval_fraction)."
            )
        if held > most:
            return f"No other rows are held out; {most:,} of them are used for evaluation (data.eval_max_rows)."
        return "No other rows are held out (data.eval_fraction)."

    def _unclear(self) -> list[Finding]:
        named = [info.name for info in self._source.files if is_split_name(info.name)]
        if len(self._source.files) < 2 or not named:
            if not self._without_train:
                return []
            named = [self._without_train]
        message = (
            f"By {', '.join(named[:_NAMED])} the data has a validation or test split but no training split: all "
            f"rows are trained on."
        )
        mend = "If that is not intended, add the training data, with 'train' in its name."
        return [Finding("named-splits-unclear", "warning", message, mend)]
