"""What a report depends on besides the data: the recipe's steps, the model's limits, the pace of this machine."""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Tokens a second, None where nothing is known, and in words where the figure comes from."""

    tokens_per_second: float | None
    basis: str


@dataclass(frozen=True)
class Training:
    """`micro_batch` None: as the trainer would choose on a device of `device_kind`.

    `longest` is how many tokens the model can take, `stops` the ids at which its chat stops, where they are known.
    `embedding_rows` is how many tokens the model has embeddings for.
    """

    seed: int = 0
    effective_batch: int = 16
    micro_batch: int | None = None
    device_kind: str = "cpu"
    pace: Pace = Pace(None, "no run of this model yet")
    longest: int | None = None
    stops: Collection[int] = ()
    embedding_rows: int | None = None
