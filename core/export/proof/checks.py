"""One thing that the proof compares: how often, how often it was the same, and where the first difference is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from os.path import commonprefix
from typing import Any

SHOWN = 40


@dataclass
class ProofCheck:
    """One thing compared `of` times, `equal` of them the same. `because` says what was not, or not compared.

    `ties` are not equal, and no fault. `broken` is why the export may not be handed over.
    """

    name: str
    by: str
    of: int = 0
    equal: int = 0
    because: str = ""
    ties: int = 0
    broken: str = field(default="", repr=False)

    def as_json(self) -> dict[str, Any]:
        """For `verified.checks`."""
        told = {"name": self.name, "by": self.by, "of": self.of, "equal": self.equal, "because": self.because}
        return {**told, **({"ties": self.ties} if self.ties else {})}

    def compare(self, own: Any, other: Any, what: str, breaks: bool = True, whose: str = "the chat") -> None:
        """Count one comparison of `own`, the chat's, with `other`, the export's; `what` is compared, for a person."""
        self.of += 1
        if own == other:
            self.equal += 1
            return
        told = f"{what}: {first_difference(own, other, whose)}"
        self.because = self.because or told
        if breaks:
            self.broken = self.broken or told

    def add(self, other: ProofCheck) -> None:
        """Count what `other` has counted too."""
        self.of += other.of
        self.equal += other.equal
        self.because, self.broken = self.because or other.because, self.broken or other.broken


def first_difference(own: Any, other: Any, whose: str = "the chat") -> str:
    """Where two texts, or two lists of tokens, part, and what stands there in both, shortened; None is a refusal."""
    if own is None or other is None:
        refuses, takes = (whose, "the export") if own is None else ("the export", whose)
        return f"{refuses} cannot lay it out, and {takes} can"
    if isinstance(own, str) and isinstance(other, str):
        at = len(commonprefix([own, other]))
        here, there = (_quoted(text[at : at + SHOWN], at + SHOWN < len(text)) for text in (own, other))
        return f"at character {at:,} {whose} has {here}, the export {there}"
    shorter = min(len(own), len(other))
    at = next((number for number in range(shorter) if own[number] != other[number]), shorter)
    here, there = (str(ids[at : at + 5]) if at < len(ids) else "nothing more" for ids in (own, other))
    return f"at token {at:,} {whose} has {here}, the export {there}"


def _quoted(text: str, goes_on: bool) -> str:
    return (json.dumps(text, ensure_ascii=False) + "…" * goes_on) if text else "nothing more"
