"""A layout said by hand: which column is what, and in a turn who speaks and what is said."""

from core.data.conversation import Row
from core.data.formats.pairs import read_pair
from core.data.formats.row_reading import DatasetLayout, Reading, Unusable, blank, missing, plain_name
from core.data.formats.turn import add_system
from core.data.formats.turns import as_turns, read_column
from core.errors import DataError
from core.settings import MappingSettings

# Where the turns of a conversation stand once rows of one turn each were put together (core/data/row_groups.py).
GATHERED = "messages"


def mapped_layout(mapping: MappingSettings) -> DatasetLayout:
    """The layout that `mapping` describes. Raises DataError where it names no column to learn from, or too many."""
    named = {"turns": mapping.turns, "reply": mapping.reply, "text": mapping.text, "conversation": mapping.conversation}
    chosen = [key for key, column in named.items() if column]
    if len(chosen) != 1:
        raise DataError(
            "data.mapping names "
            + (f"{' and '.join(chosen)} at once" if chosen else "no column to learn from")
            + ": give turns (a list of turns), or reply (with prompt), or text (plain text), or conversation (where "
            "each row is one turn)."
        )
    if mapping.conversation and not (mapping.role and mapping.content):
        raise DataError("data.mapping names a conversation, but not both role and content (the speaker and the text).")
    if mapping.reply and not (mapping.prompt or mapping.context):
        raise DataError("data.mapping names a reply but no prompt: set the column with the prompt.")
    makers = {"turns": _turns, "reply": _pair, "text": _text, "conversation": _turns}
    return makers[chosen[0]](mapping)


def _plain(column: str | None) -> str | None:
    return plain_name(column) if column else None


def _system(mapping: MappingSettings) -> tuple[str, ...]:
    return (plain_name(mapping.system),) if mapping.system else ()


def _turns(mapping: MappingSettings) -> DatasetLayout:
    column, system = plain_name(mapping.turns or GATHERED), _system(mapping)
    keys = (mapping.role or "role", mapping.content or "content") if mapping.role or mapping.content else None

    def sign(row: Row) -> str | None:
        return f"`{column}` contains a list" if as_turns(row.get(column)) else None

    def read(row: Row, reading: Reading) -> None:
        turns = as_turns(row.get(column))
        if not turns:
            raise Unusable(f"its {column!r} is not a list of turns")
        read_column(row[column], turns, column, reading, keys)
        add_system(row, reading, system)

    return DatasetLayout("mapping", "Mapped columns", sign, read)


def _pair(mapping: MappingSettings) -> DatasetLayout:
    reply, prompt, context = plain_name(mapping.reply or ""), _plain(mapping.prompt), _plain(mapping.context)
    columns = [name for name in (prompt, context, reply) if name]

    def sign(row: Row) -> str | None:
        filled = not any(missing(row.get(name)) for name in (prompt or context, reply) if name)
        return " and ".join(f"`{name}`" for name in columns) + " as mapped" if filled else None

    def read(row: Row, reading: Reading) -> None:
        read_pair(row, reading, prompt, reply, context, _system(mapping))

    return DatasetLayout("mapping", "Mapped columns", sign, read)


def _text(mapping: MappingSettings) -> DatasetLayout:
    column = plain_name(mapping.text or "")

    def sign(row: Row) -> str | None:
        return f"`{column}` contains text" if isinstance(row.get(column), str) else None

    def read(row: Row, reading: Reading) -> None:
        text = row.get(column)
        if not isinstance(text, str) or blank(text):
            raise Unusable("its text is empty" if isinstance(text, str) else f"its {mapping.text!r} is not text")
        reading.used.add(column)
        reading.text = text

    return DatasetLayout("mapping", "Mapped columns", sign, read)
