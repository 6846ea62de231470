"""Which conversations are held out to measure by: seeded, and copies never stand on both sides."""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.data.conversation import Conversation, Message
from core.settings import DataSettings

_PLAIN = frozenset({"role", "content", "weight"})


@dataclass(frozen=True, slots=True)
class Keys:
    """What identifies a conversation, 64 bits each: all of it, what comes before its first reply, that reply."""

    whole: int
    prompt: int
    reply: int


def keys_of(conversation: Conversation) -> Keys:
    """The keys of one conversation. They hold within one process: Python's hashes differ between processes."""
    if conversation.text is not None:
        key = hash(conversation.text)
        return Keys(key, key, key)
    parts = [_part(message) for message in conversation.messages]
    first = _first_answer(conversation.messages)
    tools = json.dumps(conversation.tools, sort_keys=True) if conversation.tools else ""
    prompt = hash((tools, *parts[:first]))
    return Keys(hash((prompt, *parts[first:])), prompt, hash(parts[first]))


def _first_answer(messages: list[Message]) -> int:
    """Where the first reply to a question stands; the last turn where nobody asks."""
    asked = False
    for index, message in enumerate(messages):
        if asked and message["role"] == "assistant":
            return index
        asked = asked or message["role"] == "user"
    return len(messages) - 1


def _part(message: Message) -> str:
    if message.keys() <= _PLAIN:
        return f"{message['role']}\x1f{message['content']}"
    return json.dumps({key: value for key, value in message.items() if key != "weight"}, sort_keys=True, default=str)


def keys_for_rows(rows: Iterable[int], conversations: Iterable[Conversation]) -> list[int]:
    """The key of each of `rows`, row numbers as rendered ones carry them: pieces of one text share theirs."""
    by_row = {each.row: keys_of(each).prompt for each in conversations}
    return [by_row[row] for row in rows]


def split(keys: Sequence[int], fraction: float, most: int, seed: int) -> tuple[list[int], list[int]]:
    """(train, held out) indices into `keys`, sorted. Equal keys stay on one side.

    As close to `fraction` as whole groups of equal keys and at most `most` rows allow. At least 2 groups remain to
    train; of fewer than 3 nothing is held out. The same keys, up to renaming, and seed give the same split.
    """
    sizes, group_of = _groups(keys)
    wanted = min(most, round(len(keys) * fraction))
    order = list(range(len(sizes)))
    random.Random(seed).shuffle(order)
    held = _choose(sizes, order, wanted, most) if len(sizes) > 2 else set()
    is_held = np.isin(group_of, list(held))
    return np.flatnonzero(~is_held).tolist(), np.flatnonzero(is_held).tolist()


def split_rows(keys: Sequence[int], named: Any, settings: DataSettings, seed: int) -> tuple[list[int], list[int]]:
    """(train, held out) indices into `keys` as a run has them, sorted.

    Where `named` is true, the data itself holds that row out; of those at most data.eval_max_rows are measured by,
    drawn by the seed, and none is trained on. Where it is nowhere true, a share is drawn, as `split` does.
    """
    named = np.asarray(named, dtype=bool)
    held = np.flatnonzero(named).tolist()
    if not held:
        return split(keys, settings.eval_fraction, settings.eval_max_rows, seed)
    if len(held) > settings.eval_max_rows:
        held = sorted(random.Random(seed).sample(held, settings.eval_max_rows))
    return np.flatnonzero(~named).tolist(), held


def in_both(keys: Sequence[int], train: Sequence[int], held_out: Sequence[int]) -> list[int]:
    """The held-out indices whose key is trained on too: what a loss measured on them says nothing about."""
    numbers, held = np.asarray(keys, dtype=np.int64), np.asarray(held_out, dtype=np.int64)
    trained = numbers[np.asarray(train, dtype=np.int64)]
    return held[np.isin(numbers[held], trained)].tolist()


def _groups(keys: Sequence[int]) -> tuple[list[int], Any]:
    """(the size of each group, the group of each index); groups are numbered as they first come."""
    numbers = np.asarray(keys, dtype=np.int64)
    _, first, group_of, sizes = np.unique(numbers, return_index=True, return_inverse=True, return_counts=True)
    by_first = np.argsort(first)
    number = np.empty_like(by_first)
    number[by_first] = np.arange(len(by_first))
    return sizes[by_first].tolist(), number[group_of]


def _choose(sizes: list[int], order: list[int], wanted: int, most: int) -> set[int]:
    """Groups that hold `wanted` rows in all, or as near as it goes: first what fits, then one change if it helps.

    Two groups at least are left.
    """
    held: set[int] = set()
    room = wanted
    for group in order:
        if room == 0 or len(held) == len(sizes) - 2:
            break
        if sizes[group] <= room:
            held.add(group)
            room -= sizes[group]
    return _mend(sizes, order, held, room, most - wanted) if room else held


def _mend(sizes: list[int], order: list[int], held: set[int], room: int, spare: int) -> set[int]:
    """Come closer by one more group, also in exchange for one; `room` rows are wanting, `spare` more are allowed."""
    left: dict[int, int] = {}
    taken: dict[int, int] = {0: -1} if len(held) < len(sizes) - 2 else {}
    for group in order:
        (taken if group in held else left).setdefault(sizes[group], group)
    best, change = room, (-1, -1)
    for size_in, group_in in left.items():
        for size_out, group_out in taken.items():
            over = size_in - size_out - room
            if abs(over) < best and over <= spare:
                best, change = abs(over), (group_in, group_out)
    group_in, group_out = change
    return (held | {group_in}) - {group_out} if group_in >= 0 else held
