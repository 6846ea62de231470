"""Which conversations go into which optimizer step, and how a micro-batch lies in memory: packed, never mixed.

Packing joins only conversations of the same micro-batch, so the effective batch, the number of steps and the
gradient are those of unpacked training; attention is block-diagonal by `position_ids`, so no conversation sees
another.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Dataset

from core.data.rendering.render import IGNORED, PickedRows, Rendered

Batch = dict[str, torch.Tensor]

# A pack is at least so wide: wide enough for short conversations to share, narrow enough that attention scores between
# conversations that may not see each other cost little.
MIN_PACK_WIDTH = 128


def steps_for(rows: int, effective_batch: int, epochs: float) -> int:
    """Optimizer steps in `epochs` passes over `rows` conversations; the last one is filled from the next pass."""
    return max(1, math.ceil(rows * epochs / effective_batch))


def data_order(rows: int, steps: int, effective_batch: int, seed: int) -> list[list[int]]:
    """The rows of each optimizer step, (steps, effective_batch): one shuffled pass after the other."""
    generator = torch.Generator().manual_seed(seed)
    stream: list[int] = []
    while len(stream) < steps * effective_batch:
        stream += torch.randperm(rows, generator=generator).tolist()
    return [stream[step * effective_batch : (step + 1) * effective_batch] for step in range(steps)]


def best_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Indices packed into rows of at most `width` tokens: longest first, each into the fullest row that takes it."""
    packs: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [pack for pack in range(len(packs)) if room[pack] >= lengths[index]]
        if fitting:
            chosen = min(fitting, key=lambda pack: room[pack])
            packs[chosen].append(index)
            room[chosen] -= lengths[index]
        else:
            packs.append([index])
            room.append(width - lengths[index])
    return packs


def balanced(lengths: Sequence[int], width: int) -> list[list[int]]:
    """As few packs as best fit needs, but of even length where that is possible: the longest pack decides the padding.

    Longest first, each into the emptiest pack (Graham's LPT rule); best fit's own packs where that overflows `width`.
    """
    tight = best_fit(lengths, width)
    even: list[list[int]] = [[] for _ in tight]
    filled = [0] * len(tight)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        emptiest = filled.index(min(filled))
        even[emptiest].append(index)
        filled[emptiest] += lengths[index]
    return even if max(filled) <= width else tight


def packed_batch(conversations: Sequence[Rendered]) -> Batch:
    """One micro-batch, packed: `input_ids`, `labels`, `position_ids`, each (packs, width); `real_tokens`, scalar.

    Where a token counts by anything but 1, also `weights` (packs, width). Positions start again with each
    conversation and there is no attention mask: that is how transformers knows where one ends. The first token of
    each has nothing before it to be predicted from and is never a target.
    """
    lengths = [len(conversation.ids) for conversation in conversations]
    packs = balanced(lengths, max(MIN_PACK_WIDTH, *lengths))
    batch = _filled([[conversations[index] for index in pack] for pack in packs])
    positions = torch.zeros_like(batch["input_ids"])
    for row, pack in enumerate(packs):
        sizes = [lengths[index] for index in pack]
        positions[row] = torch.cat([torch.arange(size) for size in [*sizes, positions.shape[1] - sum(sizes)]])
    return batch | {"position_ids": positions, "real_tokens": torch.tensor(sum(lengths))}


def padded_batch(conversations: Sequence[Rendered]) -> Batch:
    """One micro-batch, a conversation a row, for models whose attention does not follow `position_ids`."""
    batch = _filled([[conversation] for conversation in conversations])
    lengths = torch.tensor([[len(conversation.ids)] for conversation in conversations])
    mask = (torch.arange(batch["input_ids"].shape[1]) < lengths).long()
    return batch | {"attention_mask": mask, "real_tokens": mask.sum()}


def _filled(packs: Sequence[Sequence[Rendered]]) -> Batch:
    """`input_ids` and `labels` (packs, width) of conversations one behind the other; `weights` where one has any."""
    shape = (len(packs), max(sum(len(each.ids) for each in pack) for pack in packs))
    ids, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED, dtype=torch.long)
    weights, weighted = torch.ones(shape), False
    for row, pack in enumerate(packs):
        start = 0
        for each in pack:
            end = start + len(each.ids)
            ids[row, start:end] = torch.tensor(each.ids)
            labels[row, start + 1 : end] = torch.tensor(each.labels[1:])
            if each.weights is not None:
                weights[row, start:end], weighted = torch.tensor(each.weights), True
            start = end
    return {"input_ids": ids, "labels": labels} | ({"weights": weights} if weighted else {})


def counted(batch: Batch) -> torch.Tensor:
    """What a batch's loss is divided by: its targets, each by its weight; fp32, so that any batches' can be added."""
    targets = batch["labels"][:, 1:] != IGNORED
    return ((targets * batch["weights"][:, 1:]) if "weights" in batch else targets).sum(dtype=torch.float32)


class MicroBatches(Dataset[Batch]):
    """Every micro-batch of a run in its order, made when asked for: a run can start in the middle exactly.

    `order` holds the rows of each optimizer step, in the order in which micro-batches are cut from them (`dealt`).
    """

    def __init__(
        self, conversations: Sequence[Rendered], order: list[list[int]], micro_batch: int, packed: bool
    ) -> None:
        self.conversations, self.micro_batch = conversations, micro_batch
        if isinstance(conversations, PickedRows):
            lengths = conversations.lengths
        else:
            lengths = [len(each.ids) for each in conversations]
        self.order = [dealt(step, lengths, micro_batch, packed) for step in order]
        self.parts = [part for step in self.order for part in parts_of(step, micro_batch)]
        self.collate = packed_batch if packed else padded_batch

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Batch:
        return self.made_of(self.parts[index])

    def made_of(self, rows: Sequence[int]) -> Batch:
        """One micro-batch of these rows."""
        return self.collate([self.conversations[row] for row in rows])


def dealt(rows: Sequence[int], lengths: Sequence[int], micro_batch: int, packed: bool) -> list[int]:
    """A step's rows in the order in which micro-batches are cut from them, so that padding is least.

    The step's rows stay the same, and so does its gradient. Padded ones lie by length, the longest first. Packed ones
    do so only where that takes fewer positions and no micro-batch becomes larger than the largest was.
    """
    grouped = sorted(rows, key=lambda row: -lengths[row])
    if not packed:
        return grouped
    alone_or_all = micro_batch == 1 or micro_batch >= len(rows)
    if alone_or_all or lengths[grouped[0]] * micro_batch <= MIN_PACK_WIDTH:  # then no order is better than another
        return list(rows)
    now, then = ([packed_size(part, lengths) for part in parts_of(each, micro_batch)] for each in (rows, grouped))
    return grouped if sum(then) < sum(now) and max(then) <= max(now) else list(rows)


def packed_size(rows: Sequence[int], lengths: Sequence[int]) -> int:
    """How many positions a packed micro-batch of these rows takes, padding included."""
    sizes = [lengths[row] for row in rows]
    packs = balanced(sizes, max(MIN_PACK_WIDTH, *sizes))
    return len(packs) * max(sum(sizes[index] for index in pack) for pack in packs)


def parts_of(rows: Sequence[int], micro_batch: int) -> list[Sequence[int]]:
    """The rows of one optimizer step, `micro_batch` at a time."""
    return [rows[start : start + micro_batch] for start in range(0, len(rows), micro_batch)]


def evaluation_batches(conversations: Sequence[Rendered], tokens: int, packed: bool) -> Iterator[Batch]:
    """All `conversations` in batches of at most `tokens` tokens, or of one conversation, for measuring a loss."""
    collate = packed_batch if packed else padded_batch
    waiting: list[Rendered] = []
    for conversation in conversations:
        if waiting and sum(len(each.ids) for each in waiting) + len(conversation.ids) > tokens:
            yield collate(waiting)
            waiting = []
        waiting.append(conversation)
    if waiting:
        yield collate(waiting)
