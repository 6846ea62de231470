"""Findings that name something: which names stand in which rows, counted as they come, said at the end."""

from collections.abc import Iterable
from dataclasses import replace

from core.data.conversation import Finding
from core.data.findings import ROWS_LISTED, Rule
from core.data.formats.row_reading import Worth

# A finding names at most so many; the count goes on.
MOST_NAMES = 12
# Rows that hold the same names are counted together; beyond so many different sets all others are counted as one.
_MOST_SETS = 2000
_THE_REST = "other names"

# In rising order of how much it matters.
_WORTHS: tuple[Worth, ...] = ("unused-detail", "unused-text", "unused-answer")
# `{s}`, `{are}` and `{them}` agree with `{names}`.
_RULES = {
    "unused-answer": Rule(
        "error",
        "In {rows}, {names} look{s} like the reply, the speaker, the label or a mask and {are} not used.",
        "Set which column is what (format: mapping), or remove {them} from the file.",
    ),
    "unused-text": Rule(
        "warning",
        "In {rows}, {names} {are} not used: the model does not see {them}.",
        "To use {them}, set which column is what (format: mapping), or put {them} into the text of a turn.",
    ),
    "part-left-out": Rule(
        "warning",
        "In {rows}, parts of the unknown type {names} have no text and are ignored.",
        "Put their content into the text of the turn.",
    ),
    "turn-left-out": Rule(
        "warning",
        "In {rows}, entries such as {names} appear between turns without speaker or text and are ignored.",
        "Nothing to do if they contain no text.",
    ),
    "branch-left-out": Rule(
        "warning",
        "In {rows}, a turn has several replies under {names}: one is learned, the others are ignored.",
        "To learn another one, make it a separate conversation.",
    ),
    "strange-part": Rule(
        "note",
        "In {rows}, turns contain parts of the unknown type {names}: their text is used as it is.",
        "Check that these rows read as they should.",
    ),
    "reasoning-unfolded": Rule(
        "note",
        "In {rows}, {names} surrounds the reasoning: it is read as reasoning, without that block and its heading.",
        "Nothing to do if the reply should be learned with its reasoning.",
    ),
    "rejected-left-out": Rule(
        "note",
        "{rows} {have} a chosen and a rejected reply: the chosen one is learned, {names} is ignored.",
        "Nothing to do. Preference training (DPO) is not supported.",
    ),
    "several-answers": Rule(
        "note",
        "{rows} {have} several different replies in {names}: the first is learned.",
        "Keep the one you want, or make one row of each.",
    ),
    "unused-detail": Rule(
        "note",
        "In {rows}, {names} {are} not used.",
        "Nothing to do unless something in {them} should be learned.",
    ),
}


class Sets:
    """Which set of names stands in which rows."""

    def __init__(self) -> None:
        self._sets: dict[frozenset[str], tuple[list[int], list[int]]] = {}

    def add(self, names: Iterable[str], row: int) -> None:
        """`row` holds these names."""
        key = frozenset(names)
        if key not in self._sets and len(self._sets) >= _MOST_SETS:
            key = frozenset((_THE_REST,))
        rows, count = self._sets.setdefault(key, ([], [0]))
        count[0] += 1
        if len(rows) < ROWS_LISTED:
            rows.append(row)

    def names(self) -> dict[str, int]:
        """Every name with its number of rows, the commonest first."""
        counts: dict[str, int] = {}
        for names, (_, count) in self._sets.items():
            for name in sorted(names):
                counts[name] = counts.get(name, 0) + count[0]
        return dict(sorted(counts.items(), key=lambda each: -each[1]))

    def rows(self, names: set[str]) -> tuple[list[int], int]:
        """The first rows that hold any of `names`, rising, and how many do."""
        found = [each for held, each in self._sets.items() if not names.isdisjoint(held)]
        return sorted(row for rows, _ in found for row in rows)[:ROWS_LISTED], sum(count[0] for _, count in found)


class NamedTally:
    """What was noted by name, and what was unused; `by_hand`: the person chose the layout and what it leaves out."""

    def __init__(self, by_hand: bool) -> None:
        self._by_hand = by_hand
        self._named: dict[str, Sets] = {}
        self._unused = Sets()
        self._worths: dict[str, int] = {}

    def note(self, named: dict[str, set[str]], unused: dict[str, Worth], row: int) -> None:
        """Count `row` under what was found in it."""
        for code, names in named.items():
            self._named.setdefault(code, Sets()).add(names, row)
        if unused:
            self._unused.add(unused, row)
            for name, worth in unused.items():
                rank = _WORTHS.index(worth)
                if rank > self._worths.get(name, -1):
                    self._worths[name] = rank

    def findings(self) -> list[Finding]:
        """All that was counted."""
        found = [_finding(code, _RULES[code], sets.names(), sets) for code, sets in self._named.items()]
        counts = self._unused.names()
        for rank, worth in enumerate(_WORTHS):
            names = {name: count for name, count in counts.items() if self._worths.get(name, 0) == rank}
            if names:
                rule = _RULES[worth]
                if worth == "unused-answer" and self._by_hand:
                    rule = replace(rule, severity="warning")
                found.append(_finding(worth, rule, names, self._unused))
        return found


def _finding(code: str, rule: Rule, counts: dict[str, int], sets: Sets) -> Finding:
    rows, count = sets.rows(set(counts))
    names = said(list(counts), {name: each for name, each in counts.items() if each < count})
    one = len(counts) == 1
    of_names = {"s": "s" if one else "", "are": "is" if one else "are", "them": "it" if one else "them"}
    return rule.finding(code, rows, count, names=names, **of_names)


def said(names: list[str], counts: dict[str, int] | None = None) -> str:
    """Names as they stand in a sentence, each with its count of rows where there is one."""
    in_rows = {name: f" (in {count:,})" for name, count in (counts or {}).items()}
    shown = [f"`{name}`{in_rows.get(name, '')}" for name in names[:MOST_NAMES]]
    if len(names) > MOST_NAMES:
        shown.append(f"{len(names) - MOST_NAMES:,} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
