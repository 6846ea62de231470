"""How likely a run of letters is in a language: what letter follows what, learned from everyday words of each."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path

_SMOOTHING = 6.0  # how many letters' worth the single letters count beside the pairs
_UNSEEN = math.log(2e-5)  # of a letter that the language does not have
_KNOWN_WORD = 3.0  # of one that is spelt whole as it is known
_ODD_CASE = -5.0  # a capital letter within small ones
_CAPITALS = -1.5  # of a word in them
_MARK = -3.5  # of punctuation where it may stand
_APOSTROPHE = -2.0
_MISPLACED = -8.0  # of punctuation where it does not stand
_NO_TEXT = -12.0  # control characters, boxes, private use
_OPENING, _CLOSING = set("“„«‹‚‘»›¿¡”"), set("”“»›’‘«‹")
_BETWEEN_LETTERS = set("’·´‘")
_NEAR_NUMBERS = set("€£¥¢°§½¼¾²³¹±×÷ºª′″‰µ№₤₪₫฿")
_ANYWHERE = set("–—…•\u00a0™©®†‡·¶\u200c\u200d\u200e\u200f،؛؟ـ")


@cache
def words_of(language: str) -> tuple[str, ...]:
    """Everyday words of a language, in small letters."""
    text = Path(__file__).with_name("languages.txt").read_text(encoding="utf-8")
    _, _, after = text.partition(f"[{language}]\n")
    return tuple(_plain(after.partition("\n\n")[0]).split())


class Spelling:
    """One language. `score` is the log of how likely a piece of text is, beside others of as many bytes."""

    def __init__(self, language: str) -> None:
        words = words_of(language)
        pairs: Counter[str] = Counter()
        for word in words:
            pairs.update(a + b for a, b in zip(f" {word}", f"{word} ", strict=True))
        self._words = frozenset(words)
        self._pairs = pairs
        self._after: Counter[str] = Counter()
        self._letters: Counter[str] = Counter()
        for pair, count in pairs.items():
            self._after[pair[0]] += count
            self._letters[pair[1]] += count
        self._total = sum(self._letters.values())
        self._known: dict[str, float] = {}
        self._scores: dict[tuple[str, str, str], float] = {}

    def score(self, left: str, text: str, right: str) -> float:
        """Of `text`, which stands between `left` and `right`, a character each or none."""
        key = (left, text, right)
        if key not in self._scores:
            self._scores[key] = self._score(left, text, right)
        return self._scores[key]

    def _score(self, left: str, text: str, right: str) -> float:
        total, word = 0.0, ""
        around = f"{left or ' '}{text}{right or ' '}"
        for index, letter in enumerate(text, start=1):
            if _is_letter(letter):
                word += letter
                continue
            total += self._word(word) + _mark(around[index - 1], letter, around[index + 1])
            word = ""
        return total + self._word(word)

    def _word(self, word: str) -> float:
        if not word:
            return 0.0
        small = _plain(word)
        total = sum(self._pair(a, b) for a, b in zip(f" {small}", f"{small} ", strict=True))
        if small in self._words and len(small) > 1 and not small.isascii():
            total += _KNOWN_WORD
        if word == word.lower() or word[1:] == word[1:].lower():
            return total
        if word == word.upper():
            return total + _CAPITALS
        return total + _ODD_CASE * sum(a.islower() and b.isupper() for a, b in zip(word, word[1:], strict=False))

    def _pair(self, a: str, b: str) -> float:
        pair = a + b
        known = self._known.get(pair)
        if known is None:
            letters = self._letters[b]
            alone = letters / self._total
            likely = (self._pairs[pair] + _SMOOTHING * alone) / (self._after[a] + _SMOOTHING)
            known = self._known[pair] = math.log(likely) if letters else _UNSEEN
        return known


@cache
def spelling(language: str) -> Spelling:
    """How that language is spelt."""
    return Spelling(language)


def _is_letter(letter: str) -> bool:
    return letter.isalpha() or unicodedata.category(letter)[0] == "M"


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text.replace("İ", "i").lower())


def _mark(before: str, mark: str, after: str) -> float:
    """Of punctuation beyond ASCII between two characters."""
    if mark < "\x80":
        return 0.0
    left, right = before.isalpha(), after.isalpha()
    free_left, free_right = not before.isalnum(), not after.isalnum()
    if mark in _BETWEEN_LETTERS and left and (right or free_right):
        return _APOSTROPHE if mark == "’" else _MISPLACED / 2 if mark == "´" else _MARK
    if (mark in _OPENING and free_left) or (mark in _CLOSING and free_right):
        return _MARK
    if mark == "°" and free_left and after in "CFK":
        return _MARK
    if mark in _NEAR_NUMBERS:
        return _MARK if before.isdigit() or after.isdigit() or (free_left and free_right) else _MISPLACED
    if mark in _ANYWHERE:
        return _MARK if free_left or free_right or mark == "\u00a0" else _MARK - 2
    if unicodedata.category(mark) in ("Cc", "Cn", "Co", "So", "Cf"):
        return _NO_TEXT
    return _MISPLACED
