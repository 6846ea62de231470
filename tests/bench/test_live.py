"""The benchmark of live pages stays alive: it measures every length and says what holds."""

from __future__ import annotations

import pytest

from bench import live


def test_every_length_is_measured_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LENGTHS", (10, 20, 2_000)), ("ROUNDS", 3), ("RUNS", 12), ("FRESH_SECONDS", 0.0)):
        monkeypatch.setattr(live, name, value)
    monkeypatch.setattr("app.runs.table_html.FRESH_SECONDS", 0.0)
    rows = {row["name"]: row for row in live.main()}
    assert rows["a tick at 2,000 steps"]["value"] > 0
    assert rows["a tick, the longest against the shortest"]["bar"] == 1.5
    assert rows["12 runs, listed after a start"]["holds"]
    assert all(set(row) == {"name", "value", "unit", "reference", "bar", "holds"} for row in rows.values())
