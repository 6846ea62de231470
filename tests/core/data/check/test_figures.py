"""The report's figures: lengths, suggestions, samples with their intervals, padding and pace are what they claim."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.check.figures import choose, likely_micro_batch, padding_shares, percentile_interval, total_interval
from core.data.check.findings import RULES, merged
from core.data.check.lengths import BINS, advice, histogram, percentile, suggestions
from core.data.check.markdown import as_markdown
from core.data.findings import Hits

LENGTHS = st.lists(st.integers(2, 100_000), min_size=1, max_size=200).map(sorted).map(np.array)


@given(LENGTHS, st.integers(16, 131_072))
def test_the_histogram_counts_every_row_once_in_at_most_40_bins(lengths: Any, limit: int) -> None:
    drawn = histogram(lengths, limit)
    assert len(drawn["edges"]) == len(drawn["counts"]) + 1
    assert 1 <= len(drawn["counts"]) <= BINS
    assert sum(drawn["counts"]) == len(lengths)
    widths = set(np.diff(drawn["edges"]).tolist())
    assert len(widths) == 1
    assert math.log10(int(str(widths.pop()).rstrip("0"))) in (0, math.log10(2), math.log10(5))


def test_one_row_far_longer_than_the_rest_does_not_flatten_the_histogram() -> None:
    drawn = histogram(np.array([*range(100, 400), 90_000]), 512)
    assert drawn["edges"][-1] < 1000
    assert drawn["counts"][-1] == 1


@given(LENGTHS)
def test_suggestions_cut_what_they_say(lengths: Any) -> None:
    found = suggestions(lengths)
    assert [each["cuts"] for each in found] == [int((lengths > each["max_length"]).sum()) for each in found]
    assert found[0]["cuts"] == 0 or found[0]["max_length"] == 131_072
    assert found[-1]["share"] < 0.01 or found[-1]["max_length"] == 131_072
    assert all(each["max_length"] % 8 == 0 for each in found)


def test_the_smallest_limits_are_suggested() -> None:
    lengths = np.array([*range(1, 1000), 5001])
    assert [(each["max_length"], each["cuts"]) for each in suggestions(lengths)] == [(5008, 0), (992, 8)]
    assert [each["max_length"] for each in suggestions(lengths, longest_possible=2048)] == [992]
    short = suggestions(lengths, longest_possible=512)
    assert [(each["max_length"], each["cuts"]) for each in short] == [(512, 488)]
    assert "the most this model supports" in short[0]["because"]
    assert advice(suggestions(lengths)).startswith(
        "Set data.max_length to 5,008 (the smallest that truncates nothing) or 992"
    )


def test_percentiles_are_lengths_that_occur() -> None:
    lengths = np.arange(1, 101)
    assert [percentile(lengths, share) for share in (0.5, 0.95, 1.0)] == [51, 96, 100]
    assert percentile(lengths[:0], 0.5) == 0


def test_a_sample_is_seeded_and_without_repetition() -> None:
    assert choose(1000, 3, 100) == choose(1000, 3, 100) != choose(1000, 4, 100)
    assert len(set(choose(1000, 3, 100))) == 100
    assert choose(5, 0, 100) == [0, 1, 2, 3, 4]


def test_the_intervals_hold_the_truth_about_95_times_in_100() -> None:
    everything = np.random.default_rng(0).lognormal(5, 1, 20_000).astype(int)
    total, p95 = everything.sum(), np.sort(everything)[int(0.95 * len(everything))]
    held = {"total": 0, "p95": 0}
    for seed in range(300):
        drawn = everything[choose(len(everything), seed, 1000)]
        _, (low, high) = total_interval(drawn, len(everything))
        held["total"] += bool(low <= total <= high)
        low, high = percentile_interval(np.sort(drawn), 0.95)
        held["p95"] += bool(low <= p95 <= high)
    # 300 tries at 95 %: 285 are expected, and 3 standard deviations are 11.
    assert held["total"] >= 270
    assert held["p95"] >= 270


def test_a_sample_of_everything_leaves_no_doubt() -> None:
    assert total_interval(np.array([1, 2, 3]), 3) == (6, [6, 6])


def test_the_padding_is_that_of_the_trainers_own_batches() -> None:
    from core.data.batches import MicroBatches, data_order, steps_for
    from core.data.rendering.render import Rendered

    lengths = np.random.default_rng(1).integers(20, 400, 64).tolist()
    rows = [Rendered(row, [1] * length, [True] * length, length) for row, length in enumerate(lengths)]
    order = data_order(len(rows), steps_for(len(rows), 16, 1.0), 16, 7)
    shares = padding_shares(lengths, 16, 8, 7)
    for name, packed in (("packed", True), ("padded", False)):
        batches = list(MicroBatches(rows, order, 8, packed))
        positions = sum(batch["input_ids"].numel() for batch in batches)
        real = sum(int(batch["real_tokens"]) for batch in batches)
        assert shares[name] == pytest.approx(1 - real / positions)


def test_long_conversations_get_small_micro_batches() -> None:
    assert likely_micro_batch(100, 16, "cpu") == 16
    assert likely_micro_batch(2000, 16, "cpu") == 2
    assert likely_micro_batch(50_000, 16, "cpu") == 1
    assert padding_shares([], 16, 4, 0) == {"packed": 0.0, "padded": 0.0}


def test_every_rule_makes_a_sentence_for_one_row_and_for_many() -> None:
    details = dict.fromkeys(("example", "examples", "limit", "times", "middle", "advice", "last"), "5")
    for code, rule in RULES.items():
        one, many = (RULES[code].finding(code, [1], count, **details) for count in (1, 2000))
        for finding in (one, many):
            assert finding.message.endswith(".")
            assert finding.severity == rule.severity
            assert finding.mend.endswith((".", "5"))
            assert "{" not in finding.message + finding.mend
        assert one.message != many.message


def test_the_worst_come_first_and_a_code_is_said_once() -> None:
    found = [
        RULES["duplicate"].finding("duplicate", [1], 5),
        RULES["nothing-trained"].finding("nothing-trained", [2], 1),
        RULES["duplicate"].finding("duplicate", [3], 9),
    ]
    assert [(each.code, each.count) for each in merged(found)] == [("nothing-trained", 1), ("duplicate", 5)]


def test_a_finding_names_the_first_thousand_rows_and_counts_all() -> None:
    hits = Hits(RULES)
    for row in range(1, 3001):
        hits.add("placeholder", row, "{{name}}" if row % 3 else "{{city}}")
        hits.add("placeholder", row)
    finding = hits.finding("placeholder")
    assert finding is not None
    assert (len(finding.rows), finding.count, len(hits.rows("placeholder"))) == (1000, 3000, 3000)
    assert finding.message.startswith("3,000 rows contain an unfilled placeholder, such as {{name}} and {{city}}")
    assert hits.finding("duplicate") is None


def test_the_page_shows_what_the_data_holds_as_text() -> None:
    report = {
        "name": "<script>alert(1)</script>.jsonl", "format": "messages", "evidence": "`messages` in 3 of 3 rows",
        "rows": 3, "usable": 1, "template": "the model's own", "train_on": "last_reply", "max_length": 512,
        "tokens": None, "dropped": [{"row": 2, "reason": "a [link](x)\nand **more**"}, {"row": 3, "reason": "empty"}],
        "warnings": [{"code": "placeholder", "severity": "warning", "message": "Such as <b>.", "mend": "Do.",
                      "rows": [1], "count": 1}],
    }  # fmt: skip
    page = as_markdown(report)
    assert "<script>" not in page
    assert "\\<script\\>" in page
    assert "- a \\[link\\](x) and \\*\\*more\\*\\*: Row 2." in page
    assert "3 rows: 1 usable, 2 dropped" in page
