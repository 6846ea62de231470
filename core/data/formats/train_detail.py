"""Which characters of a reply count in the loss, where the data says so (axolotl's `train_detail`)."""

from typing import Any

from core.data.formats.row_reading import Unusable

# In a message, as in the data: a list of `{"begin_offset", "end_offset", "train"}`, characters of its content, the last
# one included. What no range covers is not trained on, as with axolotl.
DETAIL_KEY = "train_detail"
_KEYS = {"begin_offset", "end_offset", "train"}


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
    counts = bytearray(length)
    for wanted in (True, False):
        for each in ranges:
            if each["train"] is wanted:
                size = each["end_offset"] + 1 - each["begin_offset"]
                counts[each["begin_offset"] : each["end_offset"] + 1] = bytes([wanted]) * size
    return [bool(each) for each in counts]


def _is_range(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != _KEYS:
        return False
    places = (value["begin_offset"], value["end_offset"])
    return all(isinstance(each, int) and not isinstance(each, bool) for each in places) and isinstance(
        value["train"], bool
    )
