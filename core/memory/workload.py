"""The micro-batches that a run will have: the largest of them, and how many tokens they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.data.batches import MIN_PACK_WIDTH, balanced, data_order, dealt, parts_of
from core.memory.trace import MicroBatch

# No more micro-batches than this are examined; beyond, one of the longest conversations stands for the rest.
LOOKED_AT = 20_000


@dataclass(frozen=True)
class ConversationLength:
    """How long a conversation is, in tokens, and how many of them are trained on."""

    length: int
    trained: int

    def cut(self, max_length: int) -> ConversationLength:
        """The same with at most `max_length` tokens, as many of them trained on as possible."""
        if self.length <= max_length:
            return self
        return ConversationLength(max_length, min(self.trained, max_length - 1))


@dataclass(frozen=True)
class Work:
    """The largest micro-batch of a run, and the tokens of a mean optimizer step, padding included."""

    largest: MicroBatch
    tokens_a_step: float


@dataclass(frozen=True)
class Data:
    """A run's conversations, and the order in which it takes them."""

    conversations: Sequence[ConversationLength]
    steps: int
    effective_batch: int
    seed: int
    devices: int = 1

    def parts(self, micro_batch: int, max_length: int, packed: bool) -> tuple[list[list[ConversationLength]], int]:
        """The run's micro-batches of `micro_batch` conversations cut to `max_length`, and how many steps they make.

        Where several devices train, those of all of them: each takes its share of every step, as
        core/train/parallel.py deals it out.
        """
        steps = min(self.steps, max(1, LOOKED_AT * micro_batch // self.effective_batch))
        order = data_order(len(self.conversations), steps, self.effective_batch, self.seed)
        cut = [each.cut(max_length) for each in self.conversations]
        lengths = [each.length for each in cut]
        if self.devices == 1:
            order = [dealt(rows, lengths, micro_batch, packed) for rows in order]
        else:
            longest_first = [sorted(rows, key=lambda row: (-lengths[row], row)) for rows in order]
            order = [rows[rank :: self.devices] for rows in longest_first for rank in range(self.devices)]
        parts = [[cut[row] for row in part] for rows in order for part in parts_of(rows, micro_batch)]
        if steps < self.steps:
            parts.append(sorted(cut, key=lambda each: -each.length)[:micro_batch])
        return parts, steps


def work_of(parts: Sequence[Sequence[ConversationLength]], steps: int, packed: bool) -> Work:
    """Of all micro-batches `parts` of `steps` optimizer steps."""
    shapes = [shape_of(part, packed) for part in parts]
    tokens = [shape.packs * shape.width for shape in shapes]
    most = max(tokens)
    near = [shape for shape, count in zip(shapes, tokens, strict=True) if count == most]
    largest = max(near, key=lambda shape: (shape.trained, not shape.plain))
    return Work(largest, sum(tokens) / steps)


def shape_of(part: Sequence[ConversationLength], packed: bool) -> MicroBatch:
    """The shape that the trainer's own collate functions give to a micro-batch of these conversations."""
    lengths = [each.length for each in part]
    trained = sum(min(each.trained, each.length - 1) for each in part)
    if not packed:
        width = max(lengths)
        return MicroBatch(len(part), width, trained, False, all(length == width for length in lengths))
    packs = balanced(lengths, max(MIN_PACK_WIDTH, *lengths))
    filled = [sum(lengths[index] for index in pack) for pack in packs]
    width = max(filled)
    plain = all(len(pack) == 1 for pack in packs) and all(each == width for each in filled)
    return MicroBatch(len(packs), width, max(1, trained), True, plain)
