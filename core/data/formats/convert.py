"""Rows to conversations: every row becomes a usable conversation or is dropped with its reason."""

from collections.abc import Iterable

from core.data.conversation import Conversation, Conversations, Dropped, Row, Unreadable
from core.data.formats.notes import NoteTally
from core.data.formats.recognise import Recognised, other_layout
from core.data.formats.row import read_row, roles_of
from core.data.formats.row_reading import DatasetLayout, Reading, Unusable, plain_row
from core.data.spill import SpilledConversations
from core.errors import DataError
from core.settings import DataSettings


def convert(
    rows: Iterable[Row | Unreadable],
    recognised: Recognised,
    settings: DataSettings,
    file: str,
    spilled: SpilledConversations,
) -> Conversations:
    """All `rows` of `file` as conversations, the usable ones in `spilled`. Nothing but the dropped is kept in memory.

    Raises DataError where there is no row, or none is usable.
    """
    tally = NoteTally(by_hand=settings.format != "auto")
    dropped: list[Dropped] = []
    reasons: dict[str, str] = {}
    roles = roles_of(settings)
    number = 0
    for number, row in enumerate(rows, start=1):
        try:
            reading = Reading(roles)
            spilled.append(_conversation(number, row, recognised.layout, settings, reading))
            tally.note(reading, number)
        except RecursionError:
            dropped.append(Dropped(number, "it is nested too deeply for a conversation"))
        except UnicodeEncodeError:
            dropped.append(Dropped(number, "it contains half a character, such as an emoji cut in two"))
        except Unusable as error:
            reason = str(error)
            dropped.append(Dropped(number, reasons.setdefault(reason, reason) if len(reasons) < 10_000 else reason))
            tally.drop(error.code, number)
    spilled.seal()
    if not number:
        raise DataError(f"{file} contains no rows. It should have one conversation per row.")
    if not spilled:
        first = dropped[0]
        raise DataError(
            f"{file}: none of its {number:,} rows can be used as {recognised.format}. "
            f"Row {first.row:,}: {first.reason}. {_what_to_do(first.reason)}"
        )
    return Conversations(recognised.format, recognised.evidence, number, spilled, dropped, tally.findings())


def _what_to_do(reason: str) -> str:
    if "unknown role" in reason:
        return "Set data.mapping.roles to the role of each speaker: user, assistant, system, tool or leave out."
    return "Fix that, or choose another format."


def _conversation(
    number: int, row: Row | Unreadable, layout: DatasetLayout, settings: DataSettings, reading: Reading
) -> Conversation:
    """One row as a conversation. Raises Unusable, RecursionError."""
    if isinstance(row, Unreadable):
        raise Unusable(row.reason)
    try:
        return read_row(number, row, layout, settings, reading)
    except Unusable as error:
        other = other_layout(plain_row(row), layout) if error.code is None else None
        if other is None:
            raise
        # Where the layout was chosen by hand, the reason why it does not fit has to be known.
        other = f"its layout is {other}"
        reason = f"{other}, unlike the rest" if settings.format == "auto" else f"{error}; {other}"
        raise Unusable(reason, "mixed-layouts") from None
