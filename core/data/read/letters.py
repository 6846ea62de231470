"""Which of the old encodings a text is in: by how well what each makes of it is spelt in a language that it is for."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from core.data.read.characters import common_in, score_of
from core.data.read.spelling import shares_of, spelling
from core.text.encodings import EAST_ASIAN, LATIN, SINGLE_BYTE, Encoding

# What is looked at of a sample: so many bytes of lines, pieces of them, and of those the first bytes.
_LINES_BYTES, _PIECES, _PIECE_BYTES, _LINE_BYTES = 2**18, 300, 120, 2**12
_BEFORE = 20  # ASCII letters before the first that is none, in a long run
_FIRST_LOOK, _KEPT = 40, 10  # pieces that decide which encodings are looked at further, and how many those are
_FEW = 4  # pieces
_SURE, _SURE_OF_FEW = 4.0, 6.5  # nats by which the best must be ahead of the next that reads otherwise
_LEAST = -4.5  # nats a byte: text in the right encoding has about -3
_WELL = -3.3
_SURPRISE = 0.03  # how likely words beyond ASCII are of a language that the others are not of
_WORTH = 3.0  # so many pieces' worth the words in plain letters are
_PLAIN_WORDS = 120
_SHOWN, _SHOWN_LETTERS = 4, 24
# No byte below '0', nor from ':' to '?', is part of a longer character in any of them.
_HIGH = re.compile(rb"[\x80-\xff]")
_PIECE = re.compile(rb"[^\x00-\x2f\x3a-\x3f]+")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?", re.UNICODE)
_SCRIPTS = {"Greek": "Greek", "Hebrew": "Hebrew", "Arabic": "Arabic", "Persian": "Arabic", "Thai": "Thai"}
_SCRIPTS |= {"Russian": "Cyrillic", "Ukrainian": "Cyrillic"}
_HANZI = re.compile("[\u4e00-\u9fff，。？！、：；（）“”《》「」]")
_CHARACTERS = {"cp949": ("Korean syllables", re.compile("[가-힣]"))}
_CHARACTERS |= dict.fromkeys(("gb18030", "big5hkscs"), ("Chinese", _HANZI))
_CHARACTERS |= dict.fromkeys(("cp932", "euc_jis_2004"), ("Japanese kana", re.compile("[ぁ-んァ-ヶー、。・「」]")))

_COMMON_MARKS = set("“”„’‘‚–—…«»€§°©®™¡¿£\u00a0•½²³ºª×·")
# That of ISO-2022 is told by its escapes: it has no byte beyond ASCII.
_ORDER = (*SINGLE_BYTE, *(each for each in EAST_ASIAN if each.name != "iso-2022-jp"))

# What stands left of some bytes, those bytes, and what stands right of them.
Passage = tuple[str, bytes, str]
# How likely it is, in which encoding, and how each piece reads in it.
Reading = tuple[float, Encoding, list[str]]


@dataclass(frozen=True)
class Guess:
    """An encoding, how likely it is beside others (nats), what speaks for it, and words as it would have them read."""

    codec: str
    name: str
    fit: float
    evidence: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Guesses:
    """All that a sample could be in, the likeliest first; of those that make the same of it, only the usual one.

    `sure` where the first is well ahead of the second, and reads like a language; `well` where that leaves no doubt.
    """

    all: tuple[Guess, ...]
    sure: bool
    well: bool


def guess(sample: bytes) -> Guess | None:
    """The old encoding that `sample`, which is not UTF-8, is in; None where that is not sure."""
    found = guesses(sample)
    return found.all[0] if found.sure else None


@lru_cache(maxsize=4)
def guesses(sample: bytes) -> Guesses:
    """Every old encoding that can read `sample`, the likeliest first."""
    lines = _lines(sample)
    pieces = _pieces(lines)
    present = set(sample)
    around = shares_of(_plain_words(lines), LATIN)
    tried: list[Reading] = []
    for encoding in _ORDER:
        if _can_read(encoding, present, lines):
            read = [_decoded(piece, encoding.codec) for _, piece, _ in pieces[:_FIRST_LOOK]]
            tried.append((_fit(encoding, pieces[:_FIRST_LOOK], read, around), encoding, read))
    tried.sort(key=lambda each: -each[0])
    found: dict[tuple[str, ...], Reading] = {}
    for early, encoding, _ in tried:
        read = [_decoded(piece, encoding.codec) for _, piece, _ in pieces]
        fit = _fit(encoding, pieces, read, around) if len(found) < _KEPT else early * max(1, len(pieces) / _FIRST_LOOK)
        same = found.get(tuple(read))
        if same is not None:  # the likelier counts, the more usual is named
            fit, encoding = max(fit, same[0]), min(encoding, same[1], key=_ORDER.index)
        found[tuple(read)] = (fit, encoding, read)
    ranked = sorted(found.values(), key=lambda each: -each[0])
    ranked = [each for each in ranked if each[1] in SINGLE_BYTE or _can_decode(sample, each[1].codec)]
    evidence = (_evidence(each, sample) if at == 0 else "" for at, (_, each, _) in enumerate(ranked))
    every = [
        Guess(each.codec, each.name, fit, why, _words(read))
        for (fit, each, read), why in zip(ranked, evidence, strict=True)
    ]
    return Guesses(tuple(every), *_how_sure(ranked, pieces))


def _how_sure(ranked: list[Reading], pieces: list[Passage]) -> tuple[bool, bool]:
    if not ranked:
        return False, False
    letters = sum(len(piece) for _, piece, _ in pieces)
    each = (ranked[0][0] + ranked[0][1].rarity) / max(letters, 1)
    rival = ranked[1][0] if len(ranked) > 1 else -math.inf
    sure = each >= _LEAST and ranked[0][0] - rival >= (_SURE if len(pieces) >= _FEW else _SURE_OF_FEW)
    return sure, sure and each >= _WELL


def _lines(sample: bytes) -> bytes:
    """Lines of the sample that hold bytes beyond ASCII, spread over it where there are many."""
    lines = [
        line[:_LINE_BYTES] if len(line) > _LINE_BYTES else line for line in sample.split(b"\n") if not line.isascii()
    ]
    total = sum(map(len, lines))
    if len(lines) == 1 and len(sample) > _LINE_BYTES:
        return _around_high(sample)
    step = max(1, -(-total // _LINES_BYTES))
    return b"\n".join(lines[::step])


def _around_high(sample: bytes) -> bytes:
    """Of one long line: what stands around bytes beyond ASCII, up to some length."""
    found: list[tuple[int, int]] = []
    for place in _HIGH.finditer(sample):
        start = place.start()
        if not found or start >= found[-1][1]:
            found.append((max(start - 40, 0), start + 200))
        if len(found) > _LINES_BYTES // 240:
            break
    return b"\n".join(sample[start:end] for start, end in found)


def _pieces(lines: bytes) -> list[Passage]:
    """Different runs without spaces that hold bytes beyond ASCII, each with the ASCII characters beside it.

    First those that have a byte that none before them has: what reads all of these the same reads all the same.
    """
    seen: dict[Passage, None] = {}
    for place in _PIECE.finditer(lines):
        if not place[0].isascii():
            start, end = place.span()
            first = _HIGH.search(lines, start)
            start = max(start, first.start() - _BEFORE if first else start)
            end = min(end, start + _PIECE_BYTES)
            left, right = lines[max(start - 1, 0) : start], lines[end : end + 1]
            seen[left.decode("ascii", "replace"), lines[start:end], right.decode("ascii", "replace")] = None
    first_of: dict[Passage, None] = {}
    known: set[int] = set()
    for piece in seen:
        if not known.issuperset(piece[1]):
            known.update(piece[1])
            first_of[piece] = None
    step = max(1, -(-len(seen) // _PIECES))
    spread = list(seen)
    return list(first_of | dict.fromkeys(each for start in range(step) for each in spread[start::step]))[:_PIECES]


def _plain_words(lines: bytes) -> list[str]:
    """Different words in plain letters, spread over the lines."""
    found = dict.fromkeys(
        word.decode() for word in re.findall(rb"(?<![\w\x80-\xff])[A-Za-z]{3,20}(?![\w\x80-\xff])", lines)
    )
    words = list(found)
    return words[:: max(1, -(-len(words) // _PLAIN_WORDS))]


def _can_read(encoding: Encoding, present: set[int], lines: bytes) -> bool:
    """Whether every byte is a letter of it; of longer ones, whether some lines can be decoded."""
    if encoding in SINGLE_BYTE:
        return _can_decode(bytes(byte for byte in present if byte >= 0x80), encoding.codec)
    return _can_decode(lines[: lines.rfind(b"\n", 0, 2**16) if len(lines) > 2**16 else None], encoding.codec)


def _can_decode(raw: bytes, codec: str) -> bool:
    try:
        raw.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def _decoded(piece: bytes, codec: str) -> str:
    return piece.decode(codec, "ignore")  # a long piece may be cut within a character


def _fit(encoding: Encoding, pieces: list[Passage], read: list[str], around: dict[str, float]) -> float:
    """The log of how likely these readings are, each language of the encoding counting as much as the text has of it.

    `around` is how much of it each seems to have by the words in plain letters; of other scripts that says nothing.
    """
    if not pieces:
        return -math.inf
    if not encoding.languages:
        return sum(score_of(letter, encoding.codec) for text in read for letter in text)
    known = [spelling(language) for language in encoding.languages]
    scores = np.array(
        [[each.score(left, text, right) for each in known] for (left, _, right), text in zip(pieces, read, strict=True)]
    )
    likely = np.array([around.get(language, 1.0) for language in encoding.languages])
    weights = np.log((likely + _SURPRISE) / (1 + _SURPRISE) / len(known))
    for _ in range(3):
        joint = scores + weights
        most = joint.max(axis=1, keepdims=True)
        whole = most + np.log(np.exp(joint - most).sum(axis=1, keepdims=True))
        share = np.exp(joint - whole).sum(axis=0) + _WORTH * likely + 0.1
        weights = np.log(share / (share.sum() + _WORTH * (1 - likely.max())))
    return float(whole.sum()) - encoding.rarity


def _words(read: Iterable[str]) -> tuple[str, ...]:
    """A few of the words that hold letters beyond ASCII, as they would read."""
    shown: dict[str, None] = {}
    for text in read:
        found = [word for word in _WORD.findall(text) if not word.isascii()] or [text.strip()]
        shown[found[0][:_SHOWN_LETTERS]] = None
        if len(shown) == _SHOWN:
            break
    return tuple(shown)


def _evidence(encoding: Encoding, sample: bytes) -> str:
    """What speaks for an encoding, in words."""
    if encoding.languages:
        return _evidence_of_spelling(encoding, sample)
    letters = [letter for letter in sample[: 2**18].decode(encoding.codec, "ignore") if letter > "\x7f"]
    kind, script = _CHARACTERS[encoding.codec]
    of_script = sum(script.match(letter) is not None for letter in letters)
    common = common_in("".join(letters), encoding.codec)
    return f"{of_script:,} of {len(letters):,} letters beyond ASCII are {kind}, {common:,} of them all common"


def _evidence_of_spelling(encoding: Encoding, sample: bytes) -> str:
    counts = np.bincount(np.frombuffer(sample, dtype=np.uint8), minlength=256)[0x80:]
    letters = [bytes([byte]).decode(encoding.codec, "ignore") for byte in range(0x80, 0x100)]
    known = [letter.isalpha() or letter in _COMMON_MARKS for letter in letters]
    script = _SCRIPTS.get(encoding.languages[0])
    what = f"{script} letters or marks" if script else "accented letters or marks between plain ones"
    return f"{int(counts[known].sum()):,} of {int(counts.sum()):,} bytes beyond ASCII are {what}"
