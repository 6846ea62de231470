"""What a person should know of rows that were read: counted as they come, put into findings at the end."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from core.data.conversation import SEVERITIES, Finding
from core.data.findings import ROWS_LISTED, Hits, Rule
from core.data.formats.row_reading import Reading, Worth

_RULES = {
    "mixed-layouts": Rule(
        "warning",
        "{rows} {are} in a different layout from the rest and {are} dropped.",
        "Move them to a separate file, or convert them to the layout of the rest.",
    ),
    "holds-media": Rule(
        "warning",
        "{rows} contain{s} an image, audio, video or a file and {are} dropped: Nibble trains on text only.",
        "Remove those rows, or describe the content in text.",
    ),
    "unknown-role": Rule(
        "warning",
        "{rows} {have} a turn with an unknown speaker and {are} dropped.",
        "Set data.mapping.roles to the role of that name: system, user, assistant, tool or leave out.",
    ),
    "kto-dropped": Rule(
        "note",
        "{rows} {are} labelled false and {are} dropped, so that {they} {are} not learned.",
        "Nothing to do. To train on them anyway, choose the format prompt-completion.",
    ),
    "user-turn-marked": Rule(
        "note",
        "{rows} mark{s} a turn for training that is not a reply: only replies are trained on.",
        "Nothing to do unless the roles of those turns are wrong.",
    ),
    "number-as-text": Rule(
        "note",
        "{rows} {have} a number as reply: it is learned as text.",
        "Check that the column is the reply, and put quotes around the numbers if their form matters.",
    ),
    "empty-reply": Rule(
        "warning",
        "{rows} {have} an empty reply among others: it is not trained on.",
        "Fill in the reply, or remove the turn.",
    ),
    "assistant-first": Rule(
        "warning",
        "{rows} begin{s} with the assistant's turn.",
        "Fine for greetings, but some templates refuse it. Otherwise put the prompt first.",
    ),
    "same-role-twice": Rule(
        "warning",
        "{rows} {have} the same speaker twice in a row.",
        "Some templates refuse them: data.join_turns merges them.",
    ),
    "turns-joined": Rule(
        "note",
        "{rows} {have} consecutive turns of one speaker, which are merged.",
        "Nothing to do. To keep them separate, switch off data.join_turns.",
    ),
    "after-last-reply": Rule(
        "note",
        "{rows} continue{s} after the last trained reply: that part is dropped, as nothing is learned from it.",
        "Nothing to do unless a reply is missing there.",
    ),
    "nul-character": Rule(
        "warning",
        "{rows} contain{s} a NUL character.",
        "Check those rows: they were probably damaged during export.",
    ),
    "weight-left-out": Rule(
        "note",
        "{rows} {are} plain text with a weight between 0 and 1: the weight is ignored, and {they} count{s} in full.",
        "Weights apply only to replies in conversations.",
    ),
    # Of these, `{s}`, `{are}` and `{them}` agree with `{names}`.
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
# A finding names at most so many; the count goes on.
MOST_NAMES = 12
# Rows that hold the same names are counted together; beyond so many different sets all others are counted as one.
_MOST_SETS = 2000
_THE_REST = "other names"

# In rising order of how much it matters.
_WORTHS: tuple[Worth, ...] = ("unused-detail", "unused-text", "unused-answer")


class NameSets:
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
        counts: Counter[str] = Counter()
        for names, (_, count) in self._sets.items():
            counts.update(dict.fromkeys(sorted(names), count[0]))
        return dict(counts.most_common())

    def finding(self, code: str, rule: Rule, counts: dict[str, int]) -> Finding:
        """The finding `code` for the names in `counts`, with the first of the rows that hold any of them."""
        found = [each for names, each in self._sets.items() if not counts.keys().isdisjoint(names)]
        rows = sorted(row for listed, _ in found for row in listed)[:ROWS_LISTED]
        total = sum(count[0] for _, count in found)
        names = list_names(list(counts), {name: count for name, count in counts.items() if count < total})
        one = len(counts) == 1
        of_names = {"s": "s" if one else "", "are": "is" if one else "are", "them": "it" if one else "them"}
        return rule.finding(code, rows, total, names=names, **of_names)


class NoteTally:
    """Counts rows by the code of what was found in them. `by_hand`: the person chose how the rows are laid out."""

    def __init__(self, by_hand: bool) -> None:
        self._by_hand = by_hand
        self._hits = Hits(_RULES)
        self._named: dict[str, NameSets] = {}
        self._unused = NameSets()
        self._worths: dict[str, int] = {}

    def note(self, reading: Reading, row: int) -> None:
        """Count a usable `row` once for each thing that was found in it."""
        for code in reading.notes:
            self._hits.add(code, row)
        for code, names in reading.named.items():
            self._named.setdefault(code, NameSets()).add(names, row)
        if reading.unused:
            self._unused.add(reading.unused, row)
            for name, worth in reading.unused.items():
                self._worths[name] = max(self._worths.get(name, 0), _WORTHS.index(worth))

    def drop(self, code: str | None, row: int) -> None:
        """Count a dropped `row` under the finding that says so, where there is one."""
        if code is not None:
            self._hits.add(code, row)

    def findings(self) -> list[Finding]:
        """All that was counted, the most serious first."""
        found = [names.finding(code, _RULES[code], names.names()) for code, names in self._named.items()]
        counts = self._unused.names()
        for rank, worth in enumerate(_WORTHS):
            names = {name: count for name, count in counts.items() if self._worths.get(name, 0) == rank}
            rule = _RULES[worth]
            if worth == "unused-answer" and self._by_hand:
                rule = replace(rule, severity="warning")
            if names:
                found.append(self._unused.finding(worth, rule, names))
        found += filter(None, map(self._hits.finding, _RULES))
        return sorted(found, key=lambda each: SEVERITIES.index(each.severity))


def list_names(names: list[str], counts: dict[str, int] | None = None) -> str:
    """Names as they stand in a sentence, each with its count of rows where there is one."""
    in_rows = {name: f" (in {count:,})" for name, count in (counts or {}).items()}
    shown = [f"`{name}`{in_rows.get(name, '')}" for name in names[:MOST_NAMES]]
    if len(names) > MOST_NAMES:
        shown.append(f"{len(names) - MOST_NAMES:,} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
