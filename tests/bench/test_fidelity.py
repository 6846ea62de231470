"""The benchmark of QLoRA's claim stays alive: every arm learns, and what does not depend on time holds."""

from __future__ import annotations

import math

import pytest

from bench.fidelity import LORA, OTHERS, QLORA, TASK, interval, main


@pytest.mark.full
def test_every_arm_runs_and_the_formats_come_out_in_the_papers_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASK, "data.eval_max_rows", 8)
    rows = {row["name"]: row for row in main(seed=0, seeds=1, steps=4)}
    for arm in (QLORA, *OTHERS):
        value = rows[f"final loss, {arm.name}"]["value"]
        assert math.isfinite(value) and value > 0
    lora = rows[f"final loss, {LORA.name} (reference: before training)"]
    assert lora["value"] < lora["reference"]
    for weights in ("starter's weights", "normal weights"):
        assert rows[f"quantisation error, {weights}, NF4"]["holds"]
    # Relative squared errors of normal weights in blocks of 64, integrated apart from this code.
    assert rows["quantisation error, normal weights, NF4"]["value"] == pytest.approx(100 * 0.0085**0.5, rel=0.01)
    assert rows["quantisation error, normal weights, FP4"]["value"] == pytest.approx(100 * 0.0149**0.5, rel=0.01)
    assert rows["storage of a quantised parameter"]["holds"]


def test_the_interval_is_students() -> None:
    mean, low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0
    # The standard error is sqrt(2.5 / 5), and t at 0.975 with 4 degrees of freedom is 2.776.
    assert (low, high) == (pytest.approx(3 - 1.963, abs=1e-3), pytest.approx(3 + 1.963, abs=1e-3))
