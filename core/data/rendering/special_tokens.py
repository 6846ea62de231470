"""Where a rendered text may be cut: between a model's special tokens, never inside one."""

import re
from collections.abc import Iterable
from os.path import commonprefix

_SPACE = re.compile(r"\s*")
_SIGN = r"<[^<>\s]{1,60}>|\[/?[A-Z_]{2,30}\]"


class Signs:
    """Where a text may be cut: not inside one of the tokenizer's own tokens, nor inside what looks like one.

    Of `tokens` those count that look like signs or stand in the `template`: there may be thousands of others.
    """

    def __init__(self, tokens: Iterable[str], template: str) -> None:
        self._tokens = frozenset(tokens)
        odd = [
            token for token in self._tokens if len(token) > 1 and not re.fullmatch(_SIGN, token) and token in template
        ]
        named = "|".join(re.escape(token) for token in sorted(odd, key=len, reverse=True))
        self._pattern = re.compile(f"{named}|{_SIGN}" if named else _SIGN)

    def end_of_next(self, text: str, at: int) -> int:
        """Where the token ends that comes next in `text`, but for white space; `at` where something else does."""
        space = _SPACE.match(text, at)
        found = self._pattern.match(text, space.end() if space is not None else at)
        return found.end() if found is not None and found[0] in self._tokens else at

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
