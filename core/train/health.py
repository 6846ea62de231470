"""The health of a run: counts losses that are not numbers, and notices a loss that jumps."""

from dataclasses import dataclass, field
from statistics import median

# Steps in a row without a usable loss after which a run ends.
MOST_IN_A_ROW = 3
# The losses that say what is usual, and how many it takes to say so.
WINDOW, ENOUGH = 50, 20
# A jump: so many deviations above the median, so many steps in a row.
FAR, STEPS_ABOVE = 8.0, 3
# The median absolute deviation of a normal distribution, times this, is its standard deviation.
NORMAL = 1.4826
# A curve that hardly moves deviates at least by this share of its level, and by this many nats.
LEAST_SHARE, LEAST_NATS = 0.05, 0.02


@dataclass(frozen=True)
class LossJump:
    """The loss has left its usual level; both in nats a token."""

    usual: float
    now: float


@dataclass
class Health:
    """What the last steps say of a run. A checkpoint holds its fields, so that a resumed run goes on counting."""

    lost: int = 0
    lost_in_a_row: int = 0
    recent: list[float] = field(default_factory=list)
    above: int = 0
    jumped: bool = False

    def lost_step(self) -> int:
        """A step was skipped, as its loss or gradient was not a number. Returns how many in a row."""
        self.lost += 1
        self.lost_in_a_row += 1
        return self.lost_in_a_row

    def sound_step(self, loss: float) -> LossJump | None:
        """A step with `loss`, in nats a token, was taken. Returns a jump once, when it has lasted STEPS_ABOVE steps.

        Losses far above the usual do not count towards it, so that a jump cannot become the usual by lasting.
        """
        self.lost_in_a_row = 0
        usual = median(self.recent) if len(self.recent) >= ENOUGH else None
        if usual is None or loss <= usual + FAR * self._deviation(usual):
            self.above, self.jumped = 0, False
            self.recent = [*self.recent[-(WINDOW - 1) :], loss]
            return None
        self.above += 1
        if self.jumped or self.above < STEPS_ABOVE:
            return None
        self.jumped = True
        return LossJump(usual, loss)

    def _deviation(self, usual: float) -> float:
        spread = NORMAL * median(abs(loss - usual) for loss in self.recent)
        return max(spread, LEAST_SHARE * usual, LEAST_NATS)
