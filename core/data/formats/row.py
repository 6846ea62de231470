"""One row to a conversation, and what of it was not used."""

from collections.abc import Mapping
from typing import Any

from core.data.conversation import Conversation, Row
from core.data.formats.content import refuse_media
from core.data.formats.row_reading import DatasetLayout, Reading, plain_row
from core.data.formats.tools import tools_of
from core.data.formats.turn import ROLES
from core.data.formats.unused import note, unused_of
from core.data.formats.valid import valid_messages, valid_text
from core.data.formats.weights import row_weight
from core.settings import DataSettings


def roles_of(settings: DataSettings) -> Mapping[str, str]:
    """What each speaker's name means; what the person says of a name goes before what it usually means."""
    said = {name: str(role) for name, role in settings.mapping.roles.items()}
    return ROLES | said | {name.strip().lower(): role for name, role in said.items()}


def read_row(number: int, row: Row, layout: DatasetLayout, settings: DataSettings, reading: Reading) -> Conversation:
    """Row `number` as it stands in the file, as a conversation; `reading` gets what a person should know of it.

    Raises Unusable, RecursionError.
    """
    plain = plain_row(row)
    refuse_media(plain)
    layout.read(plain, reading)
    reading.weight = row_weight(plain, reading)
    if reading.text is not None:
        conversation = Conversation(number, [], text=valid_text(reading))
    else:
        messages = valid_messages(reading, settings.system, settings.join_turns)
        conversation = Conversation(number, messages, _tools(plain, reading))
    unused = unused_of(row, plain, reading)
    if unused:
        reading.unused = unused
    return conversation


def _tools(row: Row, reading: Reading) -> list[dict[str, Any]] | None:
    """The functions of the row, or those that its turns offer."""
    own = tools_of(row, reading)
    if own is not None and reading.tools not in (None, own):
        note(reading, reading.tools_path, reading.tools)
    return own or reading.tools
