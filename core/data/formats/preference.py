"""Rows with an opinion: preference pairs (the chosen reply is learned), KTO (a reply labelled false is not)."""

from typing import Any

from core.data.conversation import Row
from core.data.formats.markers import split_text
from core.data.formats.pairs import (
    PROMPT_NAMES,
    context_of,
    leave_untrained,
    prompt_and_reply,
    read_prompt,
    read_prompt_completion,
    read_reply,
)
from core.data.formats.row_reading import DatasetLayout, Reading, Unusable, first_filled, missing
from core.data.formats.turn import add_system
from core.data.formats.turns import as_turns, asks, read_column, read_turns_of, turns_of

_CHOSEN = ("chosen", "chosen_response", "chosen_messages", "accepted", "preferred_output")
_REJECTED = ("rejected", "rejected_response", "rejected_messages", "non_preferred_output")
_LABELS = ("label", "kto_tag")
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def _preference_sign(row: Row) -> str | None:
    chosen, rejected = first_filled(row, _CHOSEN), first_filled(row, _REJECTED)
    if chosen is None and rejected is not None:
        turns = turns_of(row)
        chosen = turns[0] if turns else None
    return f"`{chosen}` and `{rejected}` hold a better and a worse reply" if chosen and rejected else None


def _read_preference(row: Row, reading: Reading) -> None:
    name, worse = first_filled(row, _CHOSEN), first_filled(row, _REJECTED)
    rejected = row[worse] if worse else None
    if worse:
        reading.used.add(worse)
        reading.name("rejected-left-out", worse)
    if name is None:  # ms-swift: the better reply is the last of the turns
        if worse is None or not read_turns_of(row, reading):
            raise Unusable("it has no chosen reply")
        leave_untrained(reading.messages[:-1])
        add_system(row, reading)
        return
    prompt = first_filled(row, PROMPT_NAMES)
    chosen, rejected = _whole(row[name], prompt and row[prompt]), _whole(rejected, prompt and row[prompt])
    if prompt and isinstance(row[name], str) and _is_opened(row[prompt]):
        reading.used.add(prompt)
    if chosen is not None and any(map(asks, chosen)):
        read_column(row[name], chosen, name, reading)
        leave_untrained(reading.messages[: _shared(chosen, rejected or [])])
    else:
        if read_turns_of(row, reading):
            leave_untrained(reading.messages)
        else:
            read_prompt(row, reading, prompt, context_of(row, prompt), context_first=False)
        read_reply(row, reading, name)
    add_system(row, reading)


def _whole(value: Any, prompt: Any) -> list[Any] | None:
    """The turns that a reply holds, be they a list or marks in its text (as Anthropic's have them)."""
    turns = as_turns(value)
    if turns is not None or not isinstance(value, str):
        return turns
    found = split_text(f"{prompt}{value}" if _is_opened(prompt) else value)
    return found[1] if found else None


def _is_opened(prompt: Any) -> bool:
    """Whether a prompt ends where its reply begins, so that both are one text."""
    return isinstance(prompt, str) and prompt.rstrip().endswith("Assistant:")


def _shared(chosen: list[Any], rejected: list[Any]) -> int:
    """How many turns both begin with: they are the question, whoever speaks. The last of the chosen never is."""
    both = enumerate(zip(chosen, rejected, strict=False))
    return min(next((at for at, (one, other) in both if one != other), len(rejected)), len(chosen) - 1)


def _label(row: Row) -> bool | None:
    name = first_filled(row, _LABELS)
    value = row[name] if name else None
    if isinstance(value, str):
        return _TRUTHS.get(value.strip().lower())
    return bool(value) if isinstance(value, (bool, int)) and value in (0, 1) else None


def _kto_sign(row: Row) -> str | None:
    label = first_filled(row, _LABELS)
    if label is None or _label(row) is None:
        return None
    found = prompt_and_reply(row)
    if found and not missing(row[found[1]]):
        return f"`{found[0]}`, `{found[1]}` and a true or false `{label}`"
    turns = isinstance(row[label], bool) and turns_of(row)
    return f"a list of turns and a true or false `{label}`" if turns else None


def _read_kto(row: Row, reading: Reading) -> None:
    label = _label(row)
    if label is None:
        raise Unusable("its 'label' is neither true nor false")
    if not label:
        raise Unusable("it is labelled false, as a reply not to learn", "kto-dropped")
    reading.used.add(first_filled(row, _LABELS) or "")
    if read_turns_of(row, reading):
        add_system(row, reading)
    else:
        read_prompt_completion(row, reading)


PREFERENCE = DatasetLayout(
    "preference",
    "Preference pairs (chosen, rejected)",
    _preference_sign,
    _read_preference,
    "chosen/rejected",
    takes_precedence=True,
)
# A few rows without a label must not turn all of them into prompts and completions.
KTO = DatasetLayout("kto", "KTO (labelled replies)", _kto_sign, _read_kto, takes_precedence=True)
