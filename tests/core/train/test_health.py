"""A quiet curve warns of nothing, a jump once; steps without a loss are counted. No torch in here."""

import math
import random
import subprocess
import sys
from dataclasses import asdict

import pytest

from core.train.health import ENOUGH, Health


def _jumps(losses: list[float], health: Health | None = None) -> list[int]:
    """The steps at which a jump is told, counted from 0."""
    health = health or Health()
    return [step for step, loss in enumerate(losses) if health.sound_step(loss) is not None]


def _learning(steps: int, noise: float, seed: int = 0) -> list[float]:
    """A usual curve: from 4 down to 1 nat, with `noise` times its level as the spread from batch to batch."""
    draw = random.Random(seed)
    levels = (1 + 3 * math.exp(-step / 60) for step in range(steps))
    return [level * math.exp(draw.gauss(0, noise)) for level in levels]


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_a_quiet_curve_warns_of_nothing(noise: float, seed: int) -> None:
    assert _jumps(_learning(2000, noise, seed)) == []


def test_a_curve_at_zero_warns_of_nothing() -> None:
    """Learnt by heart: no deviation at all, then a little."""
    assert _jumps([0.001] * 100 + [0.05] * 10) == []


def test_a_jump_is_told_once_when_it_has_lasted_three_steps() -> None:
    losses = _learning(200, 0.05)
    assert _jumps(losses + [9.0] * 300) == [202]


def test_one_odd_batch_is_no_jump() -> None:
    losses = _learning(200, 0.05)
    losses[120] = losses[150] = losses[151] = 12.0
    assert _jumps(losses) == []


def test_a_second_jump_is_told_after_the_loss_has_come_back() -> None:
    losses = _learning(300, 0.05)
    losses[100:105] = losses[200:205] = [9.0] * 5
    assert _jumps(losses) == [102, 202]


def test_what_is_usual_is_not_known_from_a_few_steps() -> None:
    assert _jumps([1.0] * (ENOUGH // 2) + [50.0] * 5) == []


def test_a_jump_says_from_where_to_where() -> None:
    health = Health()
    assert _jumps([2.0] * 30 + [7.0, 8.0], health) == []
    jump = health.sound_step(9.0)
    assert jump is not None and (jump.usual, jump.now) == (2.0, 9.0)


def test_steps_without_a_loss_are_counted_in_a_row_and_in_all() -> None:
    health = Health()
    assert [health.lost_step(), health.lost_step()] == [1, 2]
    health.sound_step(1.0)
    assert (health.lost_step(), health.lost) == (1, 3)


def test_what_is_kept_goes_on_where_it_was() -> None:
    losses = _learning(200, 0.05) + [9.0] * 5
    whole, first = Health(), Health()
    expected = _jumps(losses, whole)
    told = _jumps(losses[:201], first)
    second = Health(**asdict(first))
    assert [*told, *(201 + step for step in _jumps(losses[201:], second))] == expected == [202]
    assert second == whole


def test_it_imports_no_torch() -> None:
    code = "import sys, core.train.health; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
