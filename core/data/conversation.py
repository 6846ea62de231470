"""What the rooms of core/data hand to each other: rows, conversations, what was dropped, what was found."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Row = dict[str, Any]
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

# A message in the field's terms: `role` (system, user, assistant, tool) and `content` (text), always. Where the data
# has them also `tool_calls`, `tool_call_id`, `name`, `reasoning_content`, and `weight` (0.0 to 1.0: how much this
# message counts in the loss; absent means 1.0 for a reply), `train_detail` (which characters of a reply do:
# core/data/formats/weights.py).
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row of a file that is no row: broken JSON on its line, too few cells. `reason` names the line."""

    reason: str


@dataclass(frozen=True, slots=True)
class LeftAlone(Unreadable):
    """A row of a split that is neither trained on nor measured by. `reason` names the split."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One usable row, its number counted from 1 as errors do: either messages with a reply, or plain `text`."""

    row: int
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """One row that cannot be trained on, and why."""

    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the linter says: a code, one sentence, what to do about it, and the rows, counted from 1.

    `count` is in how many rows it stands; `rows` may hold only the first of them.
    """

    code: str
    severity: Severity
    message: str
    mend: str
    rows: list[int] = field(default_factory=list)
    count: int = 0


@dataclass(frozen=True)
class Conversations:
    """A dataset as conversations. `len(usable) + len(dropped) == rows`, always; both in the order of the file.

    `usable` may lie on disk: index it or iterate over it, and keep no list of it.
    """

    format: str
    evidence: str
    rows: int
    usable: Sequence[Conversation]
    dropped: list[Dropped]
    findings: list[Finding] = field(default_factory=list)


def texts_in(value: Any) -> Iterator[str]:
    """Every text within a value, those in lists and objects included, in no order."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, (list, dict)):
            waiting.extend(each.values() if isinstance(each, dict) else each)
