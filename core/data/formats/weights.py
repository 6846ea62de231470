"""How much a row, a message and each of its characters counts in the loss, under the names of the usual tools."""

import math
from typing import Any

from core.data.formats.row_reading import Reading, Unusable, missing, short

_FLAGS = {"train": True, "trainable": True, "training": True, "loss": True, "masked": False}
_SHARES = ("weight", "loss_weight")
WEIGHT_KEYS = frozenset(_FLAGS) | frozenset(_SHARES)
_WORDS = {"true": True, "false": False, "1": True, "0": False}
# In a message, as in the data: a list of `{"begin_offset", "end_offset", "train"}`, characters of its content, the last
# one included. What no range covers is not trained on, as with axolotl.
DETAIL_KEY = "train_detail"
_TYPES_OF_A_RANGE = {"begin_offset": int, "end_offset": int, "train": bool}


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
    weight = weight_of(row, frozenset(_SHARES), "its")
    return 1.0 if weight is None else weight


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


def masked(value: Any, content: str) -> dict[str, Any]:
    """What a message gets for the ranges in `value`: the ranges, or a weight of 0 where they train on nothing.

    Nothing where they cover all of it. Raises Unusable where they are no ranges of `content`.
    """
    ranges = value if isinstance(value, list) else []
    if not ranges or not all(map(_is_range, ranges)):
        raise Unusable(f"the {DETAIL_KEY!r} of a turn is not a list of ranges with begin_offset, end_offset and train")
    if any(not 0 <= each["begin_offset"] <= each["end_offset"] < len(content) for each in ranges):
        raise Unusable(f"the {DETAIL_KEY!r} of a turn reaches beyond its text")
    counts = trained_characters(ranges, len(content))
    if all(counts):
        return {}
    return {DETAIL_KEY: ranges} if any(counts) else {"weight": 0.0}


def trained_characters(ranges: list[dict[str, Any]], length: int) -> list[bool]:
    """For each character whether it is trained on; a range that says no goes before one that says yes."""
    counts = [False] * length
    for each in sorted(ranges, key=lambda each: not each["train"]):
        size = each["end_offset"] + 1 - each["begin_offset"]
        counts[each["begin_offset"] : each["end_offset"] + 1] = [each["train"]] * size
    return counts


def _is_range(value: Any) -> bool:
    return isinstance(value, dict) and {key: type(each) for key, each in value.items()} == _TYPES_OF_A_RANGE
