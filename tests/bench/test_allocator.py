"""The simulation of torch's CUDA allocator: what is worked out by hand."""

from __future__ import annotations

import pytest

from bench.allocator import MIB, Events, FixedSegments, GrowingSegments, fits, least_limit


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        # 30 + 30 MiB are live; after the first is freed, 40 MiB fit into neither segment nor beside them, unless the
        # free one is given back: 30 + 40. Pages of 20 MiB: [0, 30) free, [30, 60) used, so 40 come behind: [60, 100).
        (FixedSegments, 70),
        (GrowingSegments, 80),
    ],
)
def test_a_gap_that_is_too_small_serves_nobody(kind: type, least: int) -> None:
    events: Events = [(0, 30 * MIB), (1, 30 * MIB), (0, None), (2, 40 * MIB)]
    peak, limit = least_limit(events, kind)
    assert peak == 70 * MIB
    assert least * MIB <= limit <= (least + 2) * MIB
    assert fits(events, kind(limit)) and not fits(events, kind(least * MIB - 1))


def test_small_tensors_share_a_segment_and_a_small_rest_of_a_large_gap_is_lost() -> None:
    assert fits([(each, MIB // 2) for each in range(4)], FixedSegments(2 * MIB))
    assert not fits([(each, MIB // 2) for each in range(5)], FixedSegments(2 * MIB))
    almost: Events = [(0, 20 * MIB - MIB // 2), (1, MIB + MIB // 4)]
    assert not fits(almost, FixedSegments(39 * MIB)), "a second segment of 20 MiB"
