"""The text of a reply as its tokens come: whole letters only, and nothing of a text that ends it. Imports no torch."""

from collections.abc import Sequence
from typing import Any

# What a decoder writes for bytes that are no letter, or not yet.
BROKEN = "\ufffd"
# A letter has four bytes at most, and a token one at least: so many at the end may be the beginning of one.
UNSURE_TOKENS = 3


class Detokenizer:
    """Tokens to text. One thread may `add` while another reads `text`."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self.ids: list[int] = []
        self.stopped = False
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._tail = max((len(stop.encode()) for stop in stops), default=0) + UNSURE_TOKENS
        self._text = ""
        self._from = self._read = 0

    def add(self, token: int) -> None:
        """One more token; `stopped` says afterwards whether a text that ends the reply has come."""
        self.ids.append(token)
        if self._stops:
            tail = self._decode(self.ids[-self._tail :])
            self.stopped = any(stop in tail for stop in self._stops)

    def text(self) -> str:
        """What may be shown now. Decodes only what is new, as the tokens before it may change how it is written."""
        window = self.ids[self._from :]
        before, now = self._decode(window[: self._read - self._from]), self._decode(window)
        for _ in range(UNSURE_TOKENS):
            if not now.endswith(BROKEN):
                break
            window = window[:-1]
            now = self._decode(window)
        if self._from + len(window) > self._read:
            self._text += now[len(before) :]
            self._from, self._read = self._read, self._from + len(window)
        return self._without_stop(self._text, final=False)

    def final(self) -> str:
        """The whole reply, as the tokenizer itself decodes its tokens."""
        return self._without_stop(self._decode(self.ids), final=True)

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _without_stop(self, text: str, final: bool) -> str:
        """Up to the first text that ends the reply; unless `final`, also without what may be the beginning of one."""
        ends = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if ends:
            return text[: min(ends)]
        held = 0 if final else max((_overlap(text, stop) for stop in self._stops), default=0)
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of `text` are the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
