"""The benchmark of loading, on a model so small that its figures say nothing."""

from __future__ import annotations

import pytest

from bench import load_model


@pytest.mark.full
def test_it_measures_every_row() -> None:
    rows = {row["name"]: row for row in load_model.main(turns=1, config=load_model.SMALL)}
    assert rows["from the store"]["value"] > 0 and rows["the base's own 16-bit files"]["value"] > 0
    assert {row["bar"] for row in rows.values()} == {None, 1.1, 1.3, 3.0}
