"""What torch's CUDA allocator needs above the live tensors, simulated from its rules over traced steps.

A step of micro-batches of different widths is traced, and what it makes and frees is played to both kinds of segments
under ever smaller limits. The rules are those of torch 2.13, CUDACachingAllocator.cpp: `get_allocation_size`,
`get_free_block` (the best fit), `should_split`, `release_cached_blocks` where the limit is met, `ExpandableSegment`.
The reference is what a plan adds (core/memory/device.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol
from unittest import mock

MIB = 2**20
SMALL = MIB  # tensors up to here have segments of their own
PAGE = {True: 2 * MIB, False: 20 * MIB}  # of a segment for small tensors, and for large ones
OWN_SEGMENT_FROM = 10 * MIB
WIDTHS = (256, 300, 413, 512, 700, 901, 1024, 1311, 1777, 2048)
# Model, layers, checkpointing.
CASES = (("qwen3-1.7b", 8, "full"), ("qwen3-8b", 5, "full"), ("llama-3.2-1b", 6, "off"))

# (tensor, bytes) where one is made, (tensor, None) where it is freed.
Events = list[tuple[int, int | None]]
# A pool or segment, where in it, and how many bytes.
Place = tuple[Any, int, int]


class NoRoom(Exception):
    """The limit is met, and nothing can be given back."""


class Allocator(Protocol):
    """Hands out places within a limit of bytes."""

    def allocate(self, size: int) -> Place:
        """A place for a tensor. Raises NoRoom."""

    def free(self, place: Place) -> None:
        """It is not needed any more."""


class Range:
    """Addresses from 0 on, of which some are used."""

    def __init__(self, size: int | None = None) -> None:
        self.size = size
        self.used: dict[int, int] = {}

    def gaps(self) -> Iterator[tuple[int, int]]:
        """(size, start) of what is free; the last one of a range without an end is as good as endless."""
        last = 0
        for start in sorted(self.used):
            if start > last:
                yield start - last, last
            last = start + self.used[start]
        end = 2**60 if self.size is None else self.size
        if end > last:
            yield end - last, last


class FixedSegments:
    """Segments of 2 MiB, 20 MiB or a large tensor's own size: what is freed serves what fits into it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pools: dict[bool, list[Range]] = {True: [], False: []}

    def allocate(self, size: int) -> Place:
        """In the smallest gap that is large enough, or in a new segment. A small rest of a large gap is lost."""
        small = size <= SMALL
        gaps = ((gap, start, each) for each in self.pools[small] for gap, start in each.gaps() if gap >= size)
        gap, start, segment = min(gaps, key=lambda one: one[0], default=(0, 0, None))
        if segment is None:
            segment = self._segment(size, small)
            gap = segment.size or 0
        taken = size if small or gap - size > SMALL else gap
        segment.used[start] = taken
        return segment, start, taken

    def free(self, place: Place) -> None:
        """Give the place back to its segment."""
        del place[0].used[place[1]]

    def _segment(self, size: int, small: bool) -> Range:
        own = -(-size // (2 * MIB)) * 2 * MIB
        segment = Range(PAGE[small] if size < OWN_SEGMENT_FROM else own)
        if self._reserved() + (segment.size or 0) > self.limit:
            self.pools = {kind: [each for each in pool if each.used] for kind, pool in self.pools.items()}
        if self._reserved() + (segment.size or 0) > self.limit:
            raise NoRoom
        self.pools[small].append(segment)
        return segment

    def _reserved(self) -> int:
        return sum(each.size or 0 for pool in self.pools.values() for each in pool)


class GrowingSegments:
    """Two ranges without an end, for small and large tensors; memory is behind those pages that were used."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pools = {True: Range(), False: Range()}
        self.pages: dict[bool, set[int]] = {True: set(), False: set()}

    def allocate(self, size: int) -> Place:
        """In the smallest gap with memory behind it, or else in the first gap, with pages added."""
        small = size <= SMALL
        start, pages = self._found(size, small)
        if self._reserved(small, pages) > self.limit:
            for kind, pool in self.pools.items():
                self.pages[kind] = {page for at, of in pool.used.items() for page in self._pages(at, of, kind)}
            start, pages = self._found(size, small)
        if self._reserved(small, pages) > self.limit:
            raise NoRoom
        self.pages[small] |= pages
        self.pools[small].used[start] = size
        return small, start, size

    def free(self, place: Place) -> None:
        """Its pages stay."""
        del self.pools[place[0]].used[place[1]]

    def _found(self, size: int, small: bool) -> tuple[int, set[int]]:
        gaps = [(gap, start) for gap, start in self.pools[small].gaps() if gap >= size]
        ready = [one for one in gaps if self._pages(one[1], size, small) <= self.pages[small]]
        start = min(ready or gaps[:1])[1]
        return start, self._pages(start, size, small)

    def _pages(self, start: int, size: int, small: bool) -> set[int]:
        return set(range(start // PAGE[small], (start + size - 1) // PAGE[small] + 1))

    def _reserved(self, small: bool, more: set[int]) -> int:
        return sum(PAGE[kind] * len(pages | more if kind == small else pages) for kind, pages in self.pages.items())


def fits(events: Events, allocator: Allocator) -> bool:
    """Whether the step runs to its end within the allocator's limit."""
    places: dict[int, Place] = {}
    try:
        for tensor, size in events:
            if size is None:
                allocator.free(places.pop(tensor))
            else:
                places[tensor] = allocator.allocate(size)
    except NoRoom:
        return False
    return True


def least_limit(events: Events, kind: type[FixedSegments] | type[GrowingSegments]) -> tuple[int, int]:
    """The most bytes of live tensors, and the smallest limit (to 2 MiB) within which the step runs."""
    sizes, live, peak = dict[int, int](), 0, 0
    for tensor, size in events:
        live += size or -sizes[tensor]
        sizes[tensor] = size or 0
        peak = max(peak, live)
    low, high = peak, 2 * peak
    while high - low > 2 * MIB:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(events, kind(middle)) else (middle, high)
    return peak, high


def step_events(name: str, layers: int, checkpointing: str, seed: int) -> Events:
    """What a step of eight packed micro-batches makes and frees, and the model before it."""
    import torch

    from core.catalogue.facts import find_model_facts
    from core.memory import trace
    from core.memory.meta_model import meta_model
    from core.model.varlen import NAME
    from core.recipe import LoraSettings, QuantizationSettings
    from core.step.optimizer import OPTIMIZERS

    events: Events = []

    class Recording(trace.Counter):
        def _born(self, storage: Any, category: str) -> None:
            super()._born(storage, category)
            known = self._known[storage._cdata]
            known.append(len(events))
            events.append((known[3], known[1]))

        def _died(self, address: int) -> None:
            if address in self._known:
                events.append((self._known[address][3], None))
            super()._died(address)

    draw, half = random.Random(seed), torch.bfloat16
    widths = [draw.choice(WIDTHS) for _ in range(8)]
    config = {**find_model_facts(name).config, "num_hidden_layers": layers}
    model = meta_model(config, QuantizationSettings(), LoraSettings(), half, half, NAME)
    shapes = [trace.MicroBatch(1, width, width // 2, packed=True, plain=False) for width in widths]
    with mock.patch.object(trace, "Counter", Recording):
        trace.trace(model, shapes, "cuda", OPTIMIZERS["paged_adamw_8bit"], checkpointing)
    return events


def main(seed: int = 0) -> list[dict[str, Any]]:
    """Rows of figures, as `bench NAME --json` prints them: percent above the live tensors."""
    from core.catalogue.facts import find_card
    from core.memory.device import of_card

    rows, card = [], of_card(find_card("rtx-4090-24gb"))
    for name, layers, checkpointing in CASES:
        events = step_events(name, layers, checkpointing, seed)
        for kind, grow in ((GrowingSegments, True), (FixedSegments, False)):
            peak, least = least_limit(events, kind)
            needed = 100 * (least / peak - 1)
            planned = 100 * (replace(card, segments_grow=grow).reserved(peak) / peak - 1)
            what = f"{name}, {layers} layers, checkpointing {checkpointing}: {'growing' if grow else 'fixed'} segments"
            rows.append({"name": what, "value": round(needed, 2), "unit": "%", "reference": round(planned, 2)})
    return [{**row, "bar": None, "holds": None} for row in rows]
