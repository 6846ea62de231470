"""How much of the trainer's batches is padding: the real micro-batches of an epoch, packed as the trainer packs."""

from collections.abc import Sequence

from core.system.hardware import BUSY_TOKENS

# An epoch of more micro-batches than this is judged by its first ones; they are shuffled.
MOST_BATCHES = 1000


def padding_shares(lengths: Sequence[int], effective_batch: int, micro_batch: int, seed: int) -> dict[str, float]:
    """`packed` and `padded`: the share of positions that hold no token, for training units of these token lengths."""
    from core.data.batches import MIN_PACK_WIDTH, balanced, data_order, dealt, parts_of, steps_for

    if not lengths:
        return {"packed": 0.0, "padded": 0.0}
    steps = min(steps_for(len(lengths), effective_batch, 1.0), -(-MOST_BATCHES * micro_batch // effective_batch))
    real = packed = padded = 0
    for step in data_order(len(lengths), steps, effective_batch, seed):
        for part in parts_of(dealt(step, lengths, micro_batch, packed=True), micro_batch):
            sizes = [lengths[row] for row in part]
            packs = balanced(sizes, max(MIN_PACK_WIDTH, *sizes))
            real += sum(sizes)
            packed += len(packs) * max(sum(sizes[index] for index in pack) for pack in packs)
        for part in parts_of(dealt(step, lengths, micro_batch, packed=False), micro_batch):
            padded += len(part) * max(lengths[row] for row in part)
    return {"packed": 1 - real / packed, "padded": 1 - real / padded}


def likely_micro_batch(mean_length: float, effective_batch: int, device_kind: str) -> int:
    """The micro-batch that the trainer takes where memory is no limit: as many as keep the device busy."""
    divisors = [size for size in range(1, effective_batch + 1) if effective_batch % size == 0]
    return max((size for size in divisors if size * mean_length <= BUSY_TOKENS[device_kind]), default=1)
