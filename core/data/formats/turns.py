"""Lists of turns: messages (role/content), ShareGPT (from/value) and their variants."""

import json
from typing import Any

from core.data.conversation import Row
from core.data.formats.row_reading import DatasetLayout, Reading, Unusable
from core.data.formats.tools import TOOL_NAMES, tools_of
from core.data.formats.trees import branch_of, nodes_of_history
from core.data.formats.turn import ROLE_KEYS, TEXT_KEYS, add_system, keys_of, pair_of, read_turns, role_key
from core.data.formats.unused import leave

COLUMNS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat", "contents",
           "chat_messages")  # fmt: skip
# Columns in which plain texts speak by turns, the question first, as in LIMA and UltraChat. (`turns` may be questions
# alone.)
_SPOKEN = ("conversations", "conversation", "dialogue", "dialog", "data")
# A list of turns in a column of another name is looked for by its keys, but not where it is one side of a pair.
_OF_PAIRS = {"prompt", "completion", "chosen", "rejected", "instruction", "input", "output", "question", "answer",
             "answers", "response", "history", "tools", "functions", "chosen_messages", "rejected_messages",
             "preferred_output", "non_preferred_output", "system", "candidates"}  # fmt: skip
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought")


def as_turns(value: Any) -> list[Any] | None:
    """The list of turns that a value is, or surely is JSON for; None where it is something else."""
    if isinstance(value, str):
        turns = _list_in(value)
        return turns if turns and all(map(_is_turn, turns)) else None
    if isinstance(value, dict):
        if isinstance(value.get("messages"), list):
            return list(value["messages"])
        return [value] if role_key(value) is not None else None
    return value if isinstance(value, list) else None


def read_column(value: Any, turns: list[Any], name: str, reading: Reading, keys: tuple[str, str] | None = None) -> None:
    """Read the `turns` that stand in the column `name`, whose `value` may hold more beside them. Raises Unusable."""
    reading.used.add(name)
    path = f"{name}[]"
    if isinstance(value, dict):
        within = isinstance(value.get("messages"), list)
        path = f"{name}.messages[]" if within else name
        if within:
            reading.tools, reading.tools_path = reading.tools or tools_of(value, reading), name
            leave(reading, name, value, {"messages", *TOOL_NAMES, *_read_history(value, name, reading)})
    read_turns(turns, reading, path, keys)


def _read_history(value: dict[str, Any], name: str, reading: Reading) -> set[str]:
    """Say what Open WebUI's `history`, where every branch stands, holds beside the turns; what of `value` that was."""
    nodes = nodes_of_history(value)
    if nodes is None:
        return set()
    turns = [turn for turn in value["messages"] if isinstance(turn, dict)]
    if any(node.get("content") not in [turn.get("content") for turn in turns] for node in nodes):
        reading.name("branch-left-out", f"{name}.history")
    leave(reading, f"{name}.history", value["history"], {"messages"})
    known = {key for turn in turns for key in turn}
    for node in nodes:
        leave(reading, f"{name}.history.messages[]", node, known)
    return {"history"}


def turns_of(row: Row) -> tuple[str, list[Any]] | None:
    """The first column that holds a list of turns which is not empty, and the list."""
    found = _column(row)
    if found and _are_spoken(*found):
        return found[0], [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(found[1])]
    return found


def read_turns_of(row: Row, reading: Reading) -> bool:
    """Read the row's list of turns; False where it has none. Raises Unusable."""
    found = turns_of(row)
    if found is None:
        return False
    branch = branch_of(row) if found[0] not in COLUMNS and isinstance(row[found[0]], dict) else None
    if branch is None:
        read_column(row[found[0]], found[1], found[0], reading)
        return True
    reading.used.update((branch.column, *branch.used))
    read_turns(branch.turns, reading, branch.path)
    for rest in branch.rest:
        leave(reading, branch.column + "[]", rest, ())
    if branch.others:
        reading.name("branch-left-out", branch.column)
    return True


def asks(turn: Any) -> bool:
    """Whether a turn, as it stands in the file, is a person's."""
    return isinstance(turn, dict) and any(turn.get(key) in ("user", "human") for key in ("role", "from"))


def _list_in(text: str) -> list[Any] | None:
    if text.lstrip()[:1] != "[" or "{" not in text:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _is_turn(value: Any) -> bool:
    named = (("role", "content"), ("role", "tool_calls"), ("from", "value"))
    return isinstance(value, dict) and any(one in value and other in value for one, other in named)


def _column(row: Row) -> tuple[str, list[Any]] | None:
    """The first of the usual columns that holds a list of turns, and the list; else one that shows it by its keys."""
    for name in COLUMNS:
        if name in row:
            value = row[name]
            turns = _list_in(value) if isinstance(value, str) else as_turns(value) if value else None
            if turns:
                return name, turns
    for name, value in row.items():
        if isinstance(value, list) and value and (_are_spoken(name, value) or _shows_turns(name, value)):
            return name, value
    branch = branch_of(row)
    return (branch.column, branch.turns) if branch and branch.turns else None


def _shows_turns(name: str, value: list[Any]) -> bool:
    return name not in _OF_PAIRS and all(
        isinstance(turn, dict) and not turn.keys().isdisjoint(ROLE_KEYS[:5]) and not turn.keys().isdisjoint(TEXT_KEYS)
        for turn in value
    )


def _are_spoken(name: str, turns: list[Any]) -> bool:
    return name in _SPOKEN and len(turns) > 1 and all(isinstance(turn, str) for turn in turns)


def _first_keys(row: Row) -> tuple[str, str, str] | None:
    """Of the first turn: the column, and the keys of who speaks and what is said."""
    found = _column(row)
    turns = [turn for turn in found[1] if isinstance(turn, dict)] if found else []
    first = next((turn for turn in turns if role_key(turn) or pair_of(turn)), None)
    if found is None or first is None:
        return None
    pair = pair_of(first)
    return (found[0], *pair) if pair else (found[0], *keys_of(first))


def _messages_sign(row: Row) -> str | None:
    found = _first_keys(row)
    return f"`{found[0]}` holds role/content turns" if found and found[1:] == ("role", "content") else None


def _sharegpt_sign(row: Row) -> str | None:
    found = _first_keys(row)
    if found is None:
        texts = _column(row)
        return f"`{texts[0]}` holds texts by turns, the question first" if texts and _are_spoken(*texts) else None
    return f"`{found[0]}` holds {found[1]}/{found[2]} turns" if found[1:] != ("role", "content") else None


def _read(row: Row, reading: Reading) -> None:
    if not read_turns_of(row, reading):
        raise Unusable("it holds no list of messages")
    add_system(row, reading)
    # Reasoning in a column of its own belongs to the only reply.
    name = next((name for name in _THOUGHTS if isinstance(row.get(name), str) and row[name].strip()), None)
    replies = [message for message in reading.messages if message["role"] == "assistant"]
    if name and len(replies) == 1 and "reasoning_content" not in replies[0]:
        replies[0]["reasoning_content"] = row[name]
        reading.used.add(name)


MESSAGES = DatasetLayout("messages", "Messages (role, content)", _messages_sign, _read, "messages (role/content)")
SHAREGPT = DatasetLayout(
    "sharegpt", "ShareGPT and chat exports (from, value)", _sharegpt_sign, _read, "conversations (from/value)"
)
