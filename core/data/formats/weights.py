"""How much a message or a row counts in the loss, under the names that the usual tools give it."""

import math
from typing import Any

from core.data.formats.row_reading import Reading, Unusable, missing, short

_FLAGS = {"train": True, "trainable": True, "training": True, "loss": True, "masked": False}
_SHARES = ("weight", "loss_weight")
WEIGHT_KEYS = frozenset(_FLAGS) | frozenset(_SHARES)
_WORDS = {"true": True, "false": False, "1": True, "0": False}


def weight_of(holder: dict[str, Any], keys: frozenset[str], what: str) -> float | None:
    """0.0 to 1.0: the product of all that `holder` says under `keys`, or None where it says nothing.

    Raises Unusable where one is out of range or not a number.
    """
    found = None
    for key in keys & holder.keys():
        value = holder[key]
        if value is None or value == "":
            continue
        if key == "loss" and value not in (True, False):  # a figure, and nothing to do with what is trained on
            continue
        share = _share(value, key, what) if key in _SHARES else float(_flag(value, key, what) == _FLAGS[key])
        found = share if found is None else found * share
    return found


def row_weight(row: dict[str, Any], reading: Reading) -> float:
    """The row's own weight, 1.0 where it has none. Raises Unusable."""
    if "weight" not in row and "loss_weight" not in row:
        return 1.0
    reading.used.update(_SHARES)
    found = weight_of(row, frozenset(_SHARES), "its")
    return 1.0 if found is None else found


def _share(value: Any, key: str, what: str) -> float:
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not 0.0 <= number <= 1.0:
        problem = "is not a number" if math.isnan(number) else "is not between 0 and 1"
        raise Unusable(f"{what} {key!r} {problem}: {short(value, 30)}")
    return number


def _flag(value: Any, key: str, what: str) -> bool:
    if isinstance(value, str):
        value = _WORDS.get(value.strip().lower())
    if missing(value) or value not in (True, False):
        raise Unusable(f"{what} {key!r} is neither true nor false")
    return bool(value)
