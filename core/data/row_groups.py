"""Rows that are parts of a conversation, or a table that stands in one row: put together, or taken apart, as they come.

One turn a row (a column says which conversation it belongs to), OpenAssistant's messages (each names its parent), and
what pandas' `to_json` writes (each column an object of cells). Everything else passes as it is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from core.data.conversation import Finding, Row, Unreadable
from core.data.formats.mapping import GATHERED
from core.data.formats.row_reading import missing, plain_name
from core.data.formats.turn import ROLE_KEYS, TEXT_KEYS
from core.data.read.document import LONGEST_CONVERSATION
from core.data.read.splits import SplitRow, Use
from core.errors import DataError
from core.settings import DataSettings

_LOOKED_AT = 50
_CONVERSATIONS = ("conversation_id", "conv_id", "conversationid", "convid", "dialogue_id", "dialog_id", "dialogueid",
                  "message_tree_id", "tree_id", "thread_id", "threadid", "chat_id", "chatid", "session_id", "sessionid",
                  "conversation", "dialogue", "dialog", "thread", "session", "chat")  # fmt: skip
_ORDERS = ("turn", "turn_id", "turn_index", "turn_idx", "turn_number", "message_index", "message_number", "position",
           "order", "sequence", "seq", "step", "index", "idx")  # fmt: skip
_PARENT, _OWN = "parent_id", "message_id"
_ROLES = ROLE_KEYS[:5]


@dataclass(frozen=True)
class Columns:
    """The columns of a file with one turn a row, under their own names; `parent` and `own` where it is a tree."""

    conversation: str
    order: str | None
    parent: str | None
    own: str | None


class Gatherer:
    """Puts the rows of one reading together. A row's number is then its conversation's.

    Where the person chose a layout by hand, rows are left as they are, unless data.mapping names a conversation.
    """

    def __init__(self, settings: DataSettings) -> None:
        self._settings = settings
        self._columns: Columns | None = None
        self._parts = self._whole = 0

    def rows(self, split_rows: Iterable[SplitRow]) -> Iterator[SplitRow]:
        """The rows to go on with; those of one conversation are for one use. Raises DataError as `split_rows` do."""
        rest = iter(split_rows)
        first = list(islice(rest, _LOOKED_AT))
        readable = [row for row, _, _ in first if isinstance(row, dict)]
        self._parts = self._whole = 0
        self._columns = self._wanted(readable)
        if len(first) == 1 and readable and _is_table(readable[0]):
            table, use_and_name = readable[0], first[0][1:]
            rows = ({column: cells[at] for column, cells in table.items()} for at in next(iter(table.values())))
            return ((row, *use_and_name) for row in rows)
        return chain(first, rest) if self._columns is None else self._together(chain(first, rest), self._columns)

    def _wanted(self, rows: list[Row]) -> Columns | None:
        """By which columns to put rows together: those that the person names, or those that the rows show."""
        mapping = self._settings.mapping
        if self._settings.format == "mapping" and mapping.conversation:
            names = {plain_name(name): name for row in rows for name in row}
            conversation = names.get(plain_name(mapping.conversation))
            if rows and conversation is None:
                known = ", ".join(list(rows[0])[:12])
                raise DataError(
                    f"There is no column {mapping.conversation!r}, which data.mapping.conversation names. The columns "
                    f"are {known}."
                )
            order = _order_in(rows, names)
            return Columns(conversation, order, None, None) if conversation is not None else None
        return _columns_in(rows) if self._settings.format == "auto" else None

    def findings(self) -> list[Finding]:
        """That rows were put together; whole once they were read to the end."""
        if self._columns is None:
            return []
        message = (
            f"The file has one turn per row: {self._parts:,} were grouped into {self._whole:,} conversations by "
            f"`{self._columns.conversation}`. Rows are counted as conversations."
        )
        mend = "Nothing to do. To read each row by itself, set the format."
        return [Finding("turns-gathered", "note", message, mend)]

    def _together(self, split_rows: Iterator[SplitRow], columns: Columns) -> Iterator[SplitRow]:
        waiting: list[Row] = []
        about: tuple[Use, str] = ("train", "")
        seen: set[int] = set()
        for row, use, name in split_rows:
            if isinstance(row, Unreadable):
                yield row, use, name
                continue
            self._parts += 1
            if waiting and (
                row.get(columns.conversation) != waiting[0].get(columns.conversation) or about != (use, name)
            ):
                yield self._joined(waiting, columns, seen), *about
                waiting = []
            about = (use, name)
            if len(waiting) <= LONGEST_CONVERSATION:
                waiting.append(row)
        if waiting:
            yield self._joined(waiting, columns, seen), *about

    def _joined(self, rows: list[Row], columns: Columns, seen: set[int]) -> Row | Unreadable:
        self._whole += 1
        column, name = columns.conversation, rows[0].get(columns.conversation)
        if missing(name) or name == "":
            return Unreadable(f"its {column!r} is empty, so its conversation is unknown")
        if hash(repr(name)) in seen:
            return Unreadable(f"the conversation {name!r} continues after others; sort the file by {column!r}")
        seen.add(hash(repr(name)))
        if len(rows) > LONGEST_CONVERSATION:
            return Unreadable(f"the conversation {name!r} has more than {LONGEST_CONVERSATION:,} turns")
        turns = [{key: value for key, value in row.items() if key != column} for row in rows]
        if columns.parent is not None and columns.own is not None:
            return _nodes(turns, columns.parent, columns.own)
        if columns.order is not None:
            places = [_place(turn.pop(columns.order, None)) for turn in turns]
            turns = [turns[at] for at in sorted(range(len(turns)), key=places.__getitem__)]
        return {GATHERED: turns}


def _is_table(row: Row) -> bool:
    """Whether each column is an object of cells under the same names, as pandas writes them: "0", "1" …"""
    columns = list(row.values())
    if len(columns) < 2 or not all(isinstance(cells, dict) and cells for cells in columns):
        return False
    names = columns[0].keys()
    return all(cells.keys() == names for cells in columns) and all(name.isdecimal() for name in names)


def _columns_in(rows: list[Row]) -> Columns | None:
    """The columns of one turn a row; None where the rows are something else."""
    names = {plain_name(name): name for name in rows[0]} if len(rows) > 1 else {}
    conversation, role, text = (_first(wanted, names) for wanted in (_CONVERSATIONS, _ROLES, TEXT_KEYS))
    if conversation is None or role is None or text is None or len({conversation, role, text}) < 3:
        return None
    if not all(isinstance(row.get(role), str) and isinstance(row.get(text), str) for row in rows):
        return None
    if not all(isinstance(row.get(conversation), (str, int)) for row in rows):
        return None
    order = _order_in(rows, names)
    tree = _PARENT in names and _OWN in names
    return Columns(conversation, order, names[_PARENT] if tree else None, names[_OWN] if tree else None)


def _order_in(rows: list[Row], names: dict[str, str]) -> str | None:
    """The column that counts the turns, where each row has a number in it."""
    order = _first(_ORDERS, names)
    return order if order and all(_place(row.get(order)) < float("inf") for row in rows) else None


def _first(wanted: tuple[str, ...], names: dict[str, str]) -> str | None:
    return next((names[name] for name in wanted if name in names), None)


def _place(value: Any) -> float:
    """A turn's place as a number; one that is none comes last."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("inf")


def _nodes(turns: list[Row], parent: str, own: str) -> Row:
    """Messages that name their parents as nodes, with the one at the end of the best way (see formats/trees.py)."""
    nodes: dict[str, dict[str, Any]] = {
        str(turn.get(own)): {
            "message": {key: value for key, value in turn.items() if key not in (parent, own)},
            "parent": None if missing(turn.get(parent)) else str(turn[parent]),
            "children": [],
        }
        for turn in turns
    }
    for name, node in nodes.items():
        if node["parent"] in nodes:
            nodes[node["parent"]]["children"].append(name)
    at = next((name for name, node in nodes.items() if node["parent"] not in nodes), next(iter(nodes)))
    passed = {at}
    while replies := [name for name in nodes[at]["children"] if name not in passed]:
        at = min(replies, key=lambda name: _rank(nodes[name]["message"]))
        passed.add(at)
    return {"mapping": nodes, "current_node": at}


def _rank(reply: Row) -> tuple[bool, float]:
    """The best one first: not deleted, then as people ranked it, then as it stands."""
    return reply.get("deleted") in (True, "true", "True"), _place(reply.get("rank"))
