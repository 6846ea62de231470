"""Where a rendered text may be cut: between a model's special tokens, never inside one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from os.path import commonprefix

_SIGN = r"<[^<>\s]{1,60}>|\[/?[A-Z_]{2,30}\]"


class Signs:
    """Where a text may be cut: not inside one of the tokenizer's own tokens, nor inside what looks like one."""

    def __init__(self, tokens: Iterable[str]) -> None:
        named = "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True) if len(token) > 1)
        self._pattern = re.compile(f"{named}|{_SIGN}" if named else _SIGN)
        self._at_once = re.compile(rf"\s*(?:{named})" if named else r"(?!)")

    def end_of_next(self, text: str, at: int) -> int:
        """Where the token ends that comes next in `text`, but for white space; `at` where something else does."""
        found = self._at_once.match(text, at)
        return found.end() if found is not None else at

    def common(self, one: str, other: str) -> int:
        """How many characters two texts begin with alike, so that neither is cut inside a sign."""
        cut = len(commonprefix([one, other]))
        for text in (one, other):
            for found in self._pattern.finditer(text, max(0, cut - 64), cut + 64):
                if found.start() < cut < found.end():
                    cut = found.start()
        return cut

    def beginnings(self, prompt: str) -> list[str]:
        """What a generation prompt begins with, whole and up to each of its later signs, without leading space."""
        text = prompt.lstrip()
        cuts = [found.start() for found in self._pattern.finditer(text) if found.start()]
        return [text[:cut] for cut in [len(text), *reversed(cuts)] if text[:cut].strip()]
