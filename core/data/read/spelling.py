"""How likely a run of letters is in a language: what letter follows what, learned from everyday words of each."""

import math
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_SMOOTHING = 6.0  # how many letters' worth the single letters count beside the pairs
_UNSEEN = math.log(2e-5)  # of a letter that the language does not have
_UNSEEN_ASCII = math.log(1e-3)  # names and foreign words have them everywhere
_KNOWN_WORD = 6.0  # of one that is spelt whole as it is known
_ENGLISH_ENDINGS = ("’t", "’s", "’re", "’ll", "’ve", "’m", "’d")
_LAST_LATIN, _TWO_SCRIPTS = "\u036f", -8.0  # of a word in letters of two scripts
_ODD_CASE = -5.0  # a capital letter within small ones
_CAPITALS = -1.5  # of a word in them
_MARK = -3.5  # of punctuation where it may stand
_APOSTROPHE = -2.0
_MISPLACED = -8.0  # of punctuation where it does not stand
_NO_TEXT = -12.0  # control characters, boxes, private use
_OPENING, _CLOSING = set("“„«‹‚‘»›¿¡”"), set("”“»›’‘«‹")
_BETWEEN_LETTERS = set("’·´‘")
_NEAR_NUMBERS = set("€£¥¢°§½¼¾²³¹±×÷ºª′″‰µ№₤₪₫฿")
_ANYWHERE = set("–—…•\u00a0™©®†‡·¶،؛؟ـ")
_OF_ARABIC = set("\u200c\u200d\u200e\u200f")  # joiners and directions, between letters that are none of English


@cache
def words_of(language: str) -> tuple[str, ...]:
    """Everyday words of a language, in small letters."""
    text = Path(__file__).with_name("languages.txt").read_text(encoding="utf-8")
    _, _, after = text.partition(f"[{language}]\n")
    return tuple(_plain(after.partition("\n\n")[0]).split())


class Spelling:
    """One language. `score` is the log of how likely a piece of text is, beside others of as many bytes."""

    def __init__(self, language: str) -> None:
        self._language = language
        words = words_of(language)
        pairs = Counter(a + b for word in words for a, b in zip(f" {word}", f"{word} ", strict=True))
        self._words = frozenset(words)
        self._pairs = pairs
        self._after = Counter(pair[0] for pair in pairs.elements())
        self._letters = Counter(pair[1] for pair in pairs.elements())
        self._total = pairs.total()
        self._known: dict[str, float] = {}
        self._scores: dict[tuple[str, str, str], float] = {}

    def score(self, left: str, text: str, right: str) -> float:
        """Of `text`, which stands between `left` and `right`, a character each or none."""
        key = (left, text, right)
        if key not in self._scores:
            self._scores[key] = self._score(left, text, right)
        return self._scores[key]

    def _score(self, left: str, text: str, right: str) -> float:
        total, word, words = 0.0, "", []
        around = f"{left or ' '}{text}{right or ' '}"
        for index, letter in enumerate(f"{text} ", start=1):
            if letter.isalpha() or unicodedata.category(letter)[0] == "M":
                word += letter
                continue
            words += [word] if word else []
            total += self._word(word)
            word = ""
            total += _mark(around[index - 1], letter, around[index + 1]) if index <= len(text) else 0.0
        return total + (_KNOWN_WORD if self._is_known(words, text) else 0.0)

    def _is_known(self, words: list[str], text: str) -> bool:
        """Whether a text is one word of the language, or one of English with its ending: don’t, it’s."""
        if len(words) == 1:
            small = _plain(words[0])
            return small in self._words and len(small) > 1 and not small.isascii()
        return self._language == "English" and len(words) == 2 and text.lower().endswith(_ENGLISH_ENDINGS)

    def _word(self, word: str) -> float:
        if not word:
            return 0.0
        small = _plain(word)
        total = sum(self._pair(a, b) for a, b in zip(f" {small}", f"{small} ", strict=True))
        if max(small) > _LAST_LATIN and any("a" <= letter <= "z" for letter in small):
            total += _TWO_SCRIPTS
        if word == word.lower() or word[1:] == word[1:].lower():
            return total
        if word == word.upper():
            return total + _CAPITALS
        return total + _ODD_CASE * sum(a.islower() and b.isupper() for a, b in zip(word, word[1:], strict=False))

    def _pair(self, a: str, b: str) -> float:
        pair = a + b
        if pair not in self._known:
            letters = self._letters[b]
            likely = (self._pairs[pair] + _SMOOTHING * letters / self._total) / (self._after[a] + _SMOOTHING)
            unseen = _UNSEEN_ASCII if b < "\x80" else _UNSEEN
            self._known[pair] = math.log(likely) if letters else unseen
        return self._known[pair]


def shares_of(words: list[str], languages: tuple[str, ...]) -> dict[str, float]:
    """How much of `words`, in plain letters, each language has, the greatest share as 1."""
    if not words:
        return dict.fromkeys(languages, 1.0)
    scores = np.array([[spelling(language).score("", word, "") for language in languages] for word in words])
    weights: Any = np.full(len(languages), 1 / len(languages))
    for _ in range(4):
        joint = np.exp(scores - scores.max(axis=1, keepdims=True)) * weights
        weights = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    return dict(zip(languages, (weights / weights.max()).tolist(), strict=True))


@cache
def spelling(language: str) -> Spelling:
    """How that language is spelt."""
    return Spelling(language)


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
        return _MARK if before.isdecimal() or after.isdecimal() or (free_left and free_right) else _MISPLACED
    if mark in _OF_ARABIC:
        return _NO_TEXT if (before + after).isascii() else _MARK
    if mark in _ANYWHERE:
        return _MARK if free_left or free_right or mark == "\u00a0" else _MARK - 2
    if unicodedata.category(mark) in ("Cc", "Cn", "Co", "So", "Cf"):
        return _NO_TEXT
    return _MISPLACED
