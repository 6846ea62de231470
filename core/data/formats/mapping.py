"""A layout chosen by hand: which column is what; and a proposal to begin with, from the names of the columns."""

from collections.abc import Iterable

from core.data.conversation import Row
from core.data.formats.pairs import CONTEXT_NAMES, PROMPT_NAMES, REPLY_NAMES, read_pair
from core.data.formats.row_reading import SYSTEM_NAMES, DatasetLayout, Reading, Unusable, blank, missing, plain_name
from core.data.formats.turn import add_system
from core.data.formats.turns import as_turns, read_column
from core.errors import DataError
from core.settings import MappingSettings

# Where the turns of a conversation stand once rows of one turn each were put together (core/data/row_groups.py).
GATHERED = "messages"
ROLE_KEYS = ("role", "from", "speaker", "author", "sender")
CONTENT_KEYS = ("content", "value", "text", "message", "utterance", "mes")
# Of a row that is classified: what the model would have to say.
_LABELS = ("label_text", "label", "labels", "class", "category", "sentiment", "intent", "emotion", "topic", "rating",
           "stars", "score")  # fmt: skip
_TEXTS = ("review", "tweet", "comment", "post", "sentence", "headline", "title", "utterance", "line", "mes")


def mapped_layout(mapping: MappingSettings) -> DatasetLayout:
    """The layout that `mapping` describes. Raises DataError where it names no column to learn from, or too many."""
    named = {"turns": mapping.turns, "reply": mapping.reply, "text": mapping.text, "conversation": mapping.conversation}
    chosen = [key for key, column in named.items() if column]
    if len(chosen) != 1:
        problem = f"{' and '.join(chosen)} at once" if chosen else "no column to learn from"
        raise DataError(
            f"data.mapping names {problem}: give turns (a list of turns), or reply (with prompt), or text (plain "
            "text), or conversation (where each row is one turn)."
        )
    if mapping.conversation and not (mapping.role and mapping.content):
        raise DataError("data.mapping names a conversation, but not both role and content (the speaker and the text).")
    if mapping.reply and not (mapping.prompt or mapping.context):
        raise DataError("data.mapping names a reply but no prompt: set the column with the prompt.")
    makers = {"turns": _turns, "reply": _pair, "text": _text, "conversation": _turns}
    return makers[chosen[0]](mapping)


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
    reply, prompt, context = (plain_name(name or "") for name in (mapping.reply, mapping.prompt, mapping.context))
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


def propose(columns: Iterable[str], turn_columns: dict[str, list[str]]) -> dict[str, str | None]:
    """Which column could be what, under the keys of data.mapping; `turn_columns` are the keys within lists of turns."""
    columns = list(columns)
    for column, keys in turn_columns.items():
        role, content = _first(ROLE_KEYS, keys), _first(CONTENT_KEYS, keys)
        if role and content:
            return {"turns": column, "role": role, "content": content, "system": _first(SYSTEM_NAMES, columns)}
    reply = _first(REPLY_NAMES, columns) or _first(_LABELS, columns)
    role, content = _first(ROLE_KEYS, columns), _first(CONTENT_KEYS, columns)
    if role and content and not reply:  # a turn a row; which column names its conversation is not told by a name
        return {"conversation": None, "role": role, "content": content}
    left = [column for column in columns if column != reply]
    prompt = _first(PROMPT_NAMES, left) or _first(_TEXTS, left)
    left = [column for column in left if column != prompt]
    named = {"context": CONTEXT_NAMES, "system": SYSTEM_NAMES}
    return {"prompt": prompt, **{key: _first(names, left) for key, names in named.items()}, "reply": reply}


def as_words(mapping: dict[str, str | None]) -> str:
    """A mapping as it stands in a sentence; empty where it names nothing to learn."""
    if not (mapping.get("turns") or (mapping.get("reply") and mapping.get("prompt"))):
        return ""
    return ", ".join(f"{key}: {name}" for key, name in mapping.items() if name)


def _first(names: Iterable[str], columns: list[str]) -> str | None:
    """The column that has the first of these names."""
    known = {plain_name(column): column for column in columns}
    return next((known[name] for name in names if name in known), None)
