"""A mapping by hand to begin with: which column could be what, by its name."""

from collections.abc import Iterable

from core.data.formats.pairs import CONTEXT_NAMES, PROMPT_NAMES, REPLY_NAMES
from core.data.formats.row_reading import SYSTEM_NAMES, plain_name

ROLE_KEYS = ("role", "from", "speaker", "author", "sender")
CONTENT_KEYS = ("content", "value", "text", "message", "utterance", "mes")
# Of a row that is classified: what the model would have to say.
_LABELS = ("label_text", "label", "labels", "class", "category", "sentiment", "intent", "emotion", "topic", "rating",
           "stars", "score")  # fmt: skip
_TEXTS = ("review", "tweet", "comment", "post", "sentence", "headline", "title", "utterance", "line", "mes")


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
