"""What a GPU benchmark may take: real models or tiny ones, and until when. A case that fails costs only itself."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from core.catalogue.facts import find_model_facts

T = TypeVar("T")
Row = dict[str, Any]
# A row of figures, or a sentence on what was left out and why.
Item = Row | str
# With --tiny each model keeps its architecture and gets these sizes.
TINY = {
    "vocab_size": 640,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NO_FIGURES = "figures"
TINY_TOKENS = 256
TINY_BYTES = 10**9


class NotHere(Exception):
    """A case that this machine cannot do, such as a model that does not fit: no failure. The message says why."""


class TookTooLong(Exception):
    """The time left was not enough."""


@dataclass(frozen=True)
class Frame:
    """`tiny`: small models, to see that all of it runs. `ends_at`: by `time.monotonic`."""

    tiny: bool = False
    ends_at: float = math.inf

    def left(self) -> float:
        """Seconds left."""
        return self.ends_at - time.monotonic()

    def config(self, model: str) -> dict[str, Any]:
        """The transformers config of a model of presets/models."""
        return {**find_model_facts(model).config, **(TINY if self.tiny else {})}

    def tokens(self, count: int) -> int:
        """The length of a conversation that has `count` tokens in a real benchmark."""
        return min(count, TINY_TOKENS) if self.tiny else count

    def bytes(self, count: int) -> int:
        """The memory that stands for `count` bytes."""
        return min(count, TINY_BYTES) if self.tiny else count

    def few(self, cases: Sequence[T]) -> Sequence[T]:
        """All of the cases, or the first."""
        return cases[:1] if self.tiny else cases

    def attempt(self, what: str, measure: Callable[[], Iterable[Item]]) -> Iterator[Item]:
        """The rows of one case. Where it cannot be had, a sentence; where it fails, a row that does not hold."""
        if self.left() <= 0:
            yield f"{what}: no time was left."
            return
        try:
            yield from measure()
        except NotHere as reason:
            yield f"{what}: {reason}"
        except TookTooLong:
            yield f"{what}: it took longer than the time left."
        except Exception as error:  # whatever it is, the other cases are measured
            yield failure(what, f"{type(error).__name__}: {error}")


def row(name: str, value: float, unit: str, reference: float | None, bar: float | None, holds: bool | None) -> Row:
    """One figure as `bench NAME --json` prints it."""
    reference = None if reference is None else round(reference, 3)
    return {"name": name, "value": round(value, 3), "unit": unit, "reference": reference, "bar": bar, "holds": holds}


def failure(what: str, why: str) -> Row:
    """The row of a case that failed: no figures, and it does not hold."""
    return row(f"{what}: failed. {' '.join(why.split())[:300]}", 0, NO_FIGURES, None, None, False)


def without_bars(rows: Iterable[Row]) -> list[Row]:
    """The rows of tiny models: their figures hold nothing and break nothing, but a case that failed has failed."""
    return [each if each["unit"] == NO_FIGURES else {**each, "bar": None, "holds": None} for each in rows]


def rows_of(items: Iterable[Item]) -> list[Row]:
    """The rows; the sentences go to standard error."""
    rows = []
    for item in items:
        if isinstance(item, str):
            print(f"Left out: {item}", file=sys.stderr)
        else:
            rows.append(item)
    return rows
