"""Rows to conversations: every row becomes a usable conversation or is dropped with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.data.conversation import Conversation, Conversations, Dropped, Row, Unreadable
from core.data.formats.content import refuse_media
from core.data.formats.findings import Tally
from core.data.formats.reading import Layout, Reading, Unusable, plain_row
from core.data.formats.recognise import Recognised, other_layout
from core.data.formats.tools import tools_of
from core.data.formats.turns import ROLES
from core.data.formats.valid import valid_messages, valid_text
from core.data.formats.weights import row_weight
from core.data.shelf import Shelf
from core.errors import DataError
from core.recipe import DataSettings

_TOO_DEEP = "it is nested too deeply to be a conversation"


def convert(
    rows: Iterable[Row | Unreadable], recognised: Recognised, settings: DataSettings, file: str, shelf: Shelf
) -> Conversations:
    """All `rows` of `file` as conversations, the usable ones on `shelf`. Nothing but the dropped is kept in memory.

    Raises DataError where there is no row, or none is usable.
    """
    tally = Tally()
    dropped: list[Dropped] = []
    reasons: dict[str, str] = {}
    roles = _roles(settings)
    number = 0
    for number, row in enumerate(rows, start=1):
        try:
            reading = Reading(roles)
            _keep(_conversation(number, row, recognised.layout, settings, reading), shelf)
            tally.note(reading.notes, number)
        except Unusable as error:
            reason = str(error)
            dropped.append(Dropped(number, reasons.setdefault(reason, reason) if len(reasons) < 10_000 else reason))
            tally.note([error.code] if error.code else [], number)
    shelf.seal()
    if not number:
        raise DataError(f"{file} holds no rows. It should hold one conversation a row.")
    if not shelf:
        first = dropped[0]
        raise DataError(
            f"{file}: none of its {number:,} rows can be used as {recognised.format}. "
            f"Row {first.row:,}: {first.reason}. Mend that, or choose another format."
        )
    return Conversations(recognised.format, recognised.evidence, number, shelf, dropped, tally.findings())


def _conversation(
    number: int, row: Row | Unreadable, layout: Layout, settings: DataSettings, reading: Reading
) -> Conversation:
    """One row as a conversation. Raises Unusable."""
    if isinstance(row, Unreadable):
        raise Unusable(row.reason)
    row = plain_row(row)
    try:
        return _read(number, row, layout, settings, reading)
    except Unusable as error:
        other = other_layout(row, layout) if error.code is None else None
        if other is None:
            raise
        if settings.format != "auto":  # said by hand: then why it does not fit is what has to be known
            raise Unusable(f"{error}; it is laid out as {other}", "mixed-layouts") from None
        raise Unusable(f"laid out as {other}, unlike the rest", "mixed-layouts") from None
    except RecursionError:
        raise Unusable(_TOO_DEEP) from None


def _keep(conversation: Conversation, shelf: Shelf) -> None:
    """Put it on the shelf. Raises Unusable where it cannot be written down."""
    try:
        shelf.append(conversation)
    except UnicodeEncodeError:
        raise Unusable("it holds half a character, such as an emoji that was cut in two") from None
    except RecursionError:
        raise Unusable(_TOO_DEEP) from None


def _read(number: int, row: Row, layout: Layout, settings: DataSettings, reading: Reading) -> Conversation:
    refuse_media(row)
    layout.read(row, reading)
    reading.weight = row_weight(row)
    if reading.text is not None:
        return Conversation(number, [], text=valid_text(reading))
    return Conversation(number, valid_messages(reading, settings.system, settings.join_turns), tools_of(row))


def _roles(settings: DataSettings) -> Mapping[str, str]:
    """What each speaker's name means; what the person says of a name goes before what it usually means."""
    said = {name: str(role) for name, role in settings.mapping.roles.items()}
    return ROLES | said | {name.strip().lower(): role for name, role in said.items()}
