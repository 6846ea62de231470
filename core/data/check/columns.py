"""What a file's first rows offer for a mapping by hand: columns, their turns, and a mapping to begin with."""

import json
from typing import Any

from core.data.conversation import Row
from core.data.formats.mapping import ROLE_KEYS, propose

SPEAKERS = 40


def names_within(rows: list[Row]) -> dict[str, Any]:
    """`columns`; `turn_columns`, the keys within each column of turns; `speakers`' names; a `mapping` to begin with."""
    columns: dict[str, None] = {}
    within: dict[str, dict[str, None]] = {}
    speakers: dict[str, None] = {}
    for row in rows:
        columns.update(dict.fromkeys(row))
        for name, value in row.items():
            for turn in _turns(value):
                within.setdefault(name, {}).update(dict.fromkeys(turn))
                said_by = next((turn[key] for key in ROLE_KEYS if key in turn), None)
                if isinstance(said_by, str) and len(speakers) < SPEAKERS:
                    speakers[said_by] = None
    turn_columns = {name: list(keys) for name, keys in within.items()}
    mapping = propose(columns, turn_columns)
    return {"columns": list(columns), "turn_columns": turn_columns, "speakers": list(speakers), "mapping": mapping}


def _turns(value: Any) -> list[dict[str, Any]]:
    """The turns in a cell: a list of objects, also as JSON in a text."""
    if isinstance(value, str) and value.lstrip()[:2] in ("[{", "[ "):
        try:
            value = json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return []
    return [turn for turn in value if isinstance(turn, dict)] if isinstance(value, list) else []
