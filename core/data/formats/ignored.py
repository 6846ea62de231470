"""Whether a layout would leave out what a row is about: the answer, the speaker, the label. Then it is not that one."""

from collections.abc import Iterator
from contextlib import suppress

from core.data.conversation import Row
from core.data.formats.mapping import as_words, propose
from core.data.formats.notes import list_names
from core.data.formats.row import read_row, roles_of
from core.data.formats.row_reading import DatasetLayout, Reading, Unusable, plain_name
from core.data.formats.turn import TEXT_KEYS
from core.data.formats.unused import is_empty, named_worth
from core.settings import DataSettings

# So many usable rows are read to see what is left out, and so many of those that fill a column of such a name.
_ENOUGH = 10
_TEXTS = {*TEXT_KEYS, "line", "dialogue"}
_SPEAKERS = {"role", "from", "speaker", "author", "sender", "user", "character", "name", "username", "is_user"}


def ignored_answers(rows: list[Row], layout: DatasetLayout, settings: DataSettings) -> list[str]:
    """What `layout` leaves out of `rows` that looks like the answer, the speaker, the label or a mask, by its path."""
    found: dict[str, None] = {}
    roles = roles_of(settings)
    for group in _telling(rows):
        usable = 0
        for row in group:
            reading = Reading(roles)
            with suppress(Unusable, RecursionError):
                read_row(1, row, layout, settings, reading)
                usable += 1
            found.update(dict.fromkeys(path for path, worth in reading.unused.items() if worth == "unused-answer"))
            if usable >= _ENOUGH:
                break
    return list(found)


def why_not(ignored: list[str], rows: list[Row]) -> str:
    """What is left out, and what to do about it, as the end of a sentence and another."""
    look = "looks" if len(ignored) == 1 else "look"
    names = list_names(ignored)
    found = f"{names} would be ignored, and {look} like the reply, the speaker, the label or a mask."
    return f"{found} {what_to_do(rows, ignored)}"


def what_to_do(rows: list[Row], ignored: list[str] | None = None) -> str:
    """How to bring rows of an unknown layout, or of one that left out what is `ignored`, into one that is known."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = next((name for name in columns if plain_name(name) in _TEXTS), None)
    speakers = columns if ignored is None else ignored
    speaker = next((name for name in speakers if plain_name(name) in _SPEAKERS and name != text), None)
    if speaker and text:
        return (
            f"If each row is one turn (`{speaker}` is the speaker, `{text}` the text), put the turns of a conversation "
            'into one row, as {"messages": […]}, or map the columns, with the one that names the conversation '
            f"(format: mapping; such as conversation: …, role: {speaker}, content: {text})."
        )
    mapping = propose(columns, {})
    words = as_words(mapping) if ignored is None or not set(mapping.values()).isdisjoint(ignored) else ""
    begin = "Or set" if ignored is None else "Set"
    return f"{begin} which column is what (format: mapping{words and '; such as '}{words})."


def _telling(rows: list[Row]) -> Iterator[Iterator[Row]]:
    """Rows that show what is left out: all; and for each column with such a name those that fill it."""
    yield iter(rows)
    for name in dict.fromkeys(name for row in rows for name in row):
        if "unused-answer" in (named_worth(name, True), named_worth(name, False)):
            yield (row for row in rows if not is_empty(row.get(name)))
