"""The slots of a device that streamed layers visit in turn, and what is in each or on its way there.

A layer always visits the same slot, its number among the streamed modulo the slots: what autograd keeps of a product in
four bits is a view of the packed weights (bitsandbytes 0.50.2, autograd/_functions.py, `MatMul4Bit`), and is right
again when the layer's own backward pass comes.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress

import torch

from core.model.stream.source import Event, Source, Ticket, UnreadableBlock, now


class Ring:
    """Slots for the blocks of the layers `numbers`, which have these `sizes` in bytes. A layer is named by its place.

    Each slot is an allocation of its own, as large as the largest block that visits it. What was asked for in vain is
    forgotten when it fails, so a pass that failed leaves nothing behind that the next one could take for a block.
    """

    def __init__(
        self, source: Source, numbers: Sequence[int], sizes: Sequence[int], slots: int, device: torch.device
    ) -> None:
        self._source, self._numbers, self._sizes, self._device = source, numbers, sizes, device
        self.slots = [torch.empty(size, dtype=torch.uint8, device=device) for size in slot_sizes(sizes, slots)]
        self._blocks = [self.slots[self._slot(place)][:size] for place, size in enumerate(sizes)]
        self._holds: list[int | None] = [None] * len(self.slots)
        self._coming: list[Ticket | None] = [None] * len(self.slots)
        self.bytes_moved = 0
        self._waited = 0.0
        self._waits: deque[tuple[Event, Event]] = deque()  # of a card, before and after: it tells how long later

    def block(self, place: int) -> torch.Tensor:
        """The memory that the layer's block comes to (bytes,)."""
        return self._blocks[place]

    def have(self, place: int) -> None:
        """Have the layer's block come, unless it is there or on its way; what is in its slot may be computing still."""
        slot = self._slot(place)
        if self._holds[slot] == place:
            return
        self._holds[slot] = None
        self._coming[slot] = self._source.bring(self._numbers[place], self.block(place), now(self._device))
        self._holds[slot] = place
        self.bytes_moved += self._sizes[place]

    def wait(self, place: int) -> None:
        """Have what is computed from now on find the layer's block, which was asked for, in its slot."""
        slot = self._slot(place)
        ticket, self._coming[slot] = self._coming[slot], None
        if ticket is None:
            return
        began, before = time.perf_counter(), now(self._device, timed=True)
        try:
            ticket.wait()
        except BaseException:
            self._holds[slot] = None
            raise
        if before is None:
            self._waited += time.perf_counter() - began
        else:
            self._waits.append((before, now(self._device, timed=True)))

    @property
    def seconds_waiting(self) -> float:
        """How long computing has waited for blocks; on a card, by what it has done until now."""
        while self._waits and self._waits[0][1].query():
            before, after = self._waits.popleft()
            self._waited += before.elapsed_time(after) / 1000
        return self._waited

    def after(self, place: int, step: int, around: bool) -> Iterator[int]:
        """The places that come after `place`, forwards (`step` 1) or backwards (-1), which there are slots for.

        `around`: the first comes after the last.
        """
        taken = {self._slot(place)}
        for more in range(1, len(self.slots)):
            then = place + step * more
            then = then % len(self._numbers) if around else then
            if not 0 <= then < len(self._numbers) or self._slot(then) in taken:
                return
            taken.add(self._slot(then))
            yield then

    def close(self) -> None:
        """Wait for what is on its way; nothing is used any more."""
        for place in [each for each in self._holds if each is not None]:
            with suppress(UnreadableBlock):  # nobody needs it
                self.wait(place)
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _slot(self, place: int) -> int:
        return place % len(self.slots)


def slot_sizes(sizes: Sequence[int], slots: int) -> list[int]:
    """How large each slot has to be for blocks of these sizes, in bytes. There are no more slots than blocks."""
    return [max(sizes[slot::slots]) for slot in range(min(slots, len(sizes)))]
