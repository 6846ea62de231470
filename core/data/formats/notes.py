"""What a person should know of rows that were read: counted as they come, said as findings at the end."""

from core.data.conversation import SEVERITIES, Finding
from core.data.findings import Hits, Rule
from core.data.formats.named_notes import NamedTally
from core.data.formats.row_reading import Reading

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
}


class NoteTally:
    """Counts rows by the code of what was found in them. `by_hand`: the person chose how the rows are laid out."""

    def __init__(self, by_hand: bool = False) -> None:
        self._hits = Hits(_RULES)
        self._named = NamedTally(by_hand)

    def note(self, reading: Reading, row: int) -> None:
        """Count a usable `row` once for each thing that was found in it."""
        for code in reading.notes:
            self._hits.add(code, row)
        if reading.named or reading.unused:
            self._named.note(reading.named, reading.unused, row)

    def drop(self, code: str | None, row: int) -> None:
        """Count a dropped `row` under the finding that says so, where there is one."""
        if code is not None:
            self._hits.add(code, row)

    def findings(self) -> list[Finding]:
        """All that was counted, the most serious first."""
        found = [*self._named.findings(), *filter(None, map(self._hits.finding, _RULES))]
        return sorted(found, key=lambda each: SEVERITIES.index(each.severity))
