"""How a text file's letters are stored: found in a sample, with the evidence in words, or chosen by hand."""

import codecs
import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from core.data.read.blob import Blob
from core.data.read.letters import Guesses, guesses
from core.errors import DataError
from core.text.encodings import codec_of, is_ascii_based, name_of

HEAD = 2 * 2**20
_FURTHER_BLOCKS, _BLOCK = 8, 2**18  # of a large plain file, spread over it

_LOOKED_AT_BYTES = 2**16  # for UTF-16 without a mark
_NOT_TEXT = {"Cc", "Cn", "Co", "Cs"}
# Control characters that text has none of: not tabs, line ends, nor the escapes that colour a terminal.
_CONTROLS = bytes([*range(0x01, 0x09), *range(0x0E, 0x1B), *range(0x1C, 0x20)])
_MOST_CONTROLS = 0.05  # of random bytes a tenth are such
_NEARLY_ALL = 0.9  # of the bytes beyond ASCII are in letters of UTF-8
_OFFERED = 5  # in a sentence
_LETTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_ESCAPED = re.compile(rb"\x1b\$[@B]")
_MARKS = (
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Encoded:
    """The codec that Python knows, the name for a person, and what speaks for it.

    `guessed` where nothing in the file proves it. `returns`: lines end with a carriage return alone.
    """

    codec: str
    evidence: str
    guessed: bool = False
    returns: bool = False

    @property
    def name(self) -> str:
        """The encoding as a person knows it."""
        return name_of(self.codec)

    @property
    def wide(self) -> bool:
        """Whether lines cannot be found by their bytes: a letter takes two or four, or plain ones are other bytes."""
        return self.codec.startswith(("utf-16", "utf-32", "iso2022")) or not is_ascii_based(self.codec)


class EncodingUnsure(DataError):
    """More than one encoding may be the right one: a person has to choose. `guesses` has them all, likeliest first."""

    def __init__(self, name: str, where: str, found: Guesses) -> None:
        self.found = found
        offers = "; ".join(f"{each.name} reads {shown(each.words)}" for each in found.all[:_OFFERED])
        more = f"; and {len(found.all) - _OFFERED} more" if len(found.all) > _OFFERED else ""
        begins = f"{name} is not UTF-8 at {where}, and its older encoding is uncertain"
        offered = f"{begins}: {offers}{more}." if offers else f"{begins}: no known encoding turns it into text."
        super().__init__(f"{offered} Set the encoding (data.encoding), or save the file as UTF-8.")


def shown(words: Iterable[str]) -> str:
    """Words as a sentence shows them."""
    return ", ".join(f"“{word}”" for word in words)


def offers_of(blob: Blob) -> Guesses | None:
    """What else `blob` could be in where it is no valid UTF-8 nor any other Unicode; None where it is."""
    head = blob.head(HEAD)
    if any(head.startswith(mark) for mark, _ in _MARKS) or b"\0" in head or _is_escaped(head):
        return None
    sample = _whole_lines(head, HEAD) + _further(blob)
    try:
        sample.decode("utf-8")
    except UnicodeDecodeError:
        return guesses(sample)
    return None


def find_encoding(blob: Blob, wanted: str, like: Collection[str] = ()) -> Encoded:
    """How the text in `blob` is stored: `wanted`, or found where that is 'auto'.

    `like` are codecs that files beside it are in: one of them is taken where it is not sure by itself. Raises
    EncodingUnsure where it must be chosen, DataError for no text.
    """
    head = blob.head(HEAD)
    encoded = _find(blob, head, like) if wanted == "auto" else _by_hand(head, wanted)
    text = head.decode(encoded.codec, "replace")
    if "\r" in text and "\n" not in text.rstrip("\r\n"):
        return Encoded(encoded.codec, encoded.evidence, encoded.guessed, returns=True)
    return encoded


def _by_hand(head: bytes, wanted: str) -> Encoded:
    marks = tuple(mark for mark, codec in _MARKS if codec == wanted)
    if wanted in ("utf-16", "utf-32") and not head.startswith(marks):
        return Encoded(_wide_by_nuls(head) or f"{wanted}-le", "chosen by hand")
    return Encoded(codec_of(wanted), "chosen by hand")


def _find(blob: Blob, head: bytes, like: Collection[str]) -> Encoded:
    for mark, codec in _MARKS:
        if head.startswith(mark):
            return Encoded(codec, "its byte order mark")
    if b"\0" in head:
        return _with_nuls(blob.name, head)
    if _is_escaped(head):
        return Encoded("iso2022_jp_2", "its escape sequences for Japanese letters")
    sample = _whole_lines(head, HEAD) + _further(blob)
    try:
        sample.decode("utf-8")
        return Encoded("utf-8", "plain ASCII" if sample.isascii() else "valid UTF-8 with letters beyond ASCII")
    except UnicodeDecodeError as error:
        if _is_binary(head):
            raise _no_text(blob.name) from None
        return _not_utf8(blob.name, sample, error, len(head), like)


def _not_utf8(name: str, sample: bytes, error: UnicodeDecodeError, head: int, like: Collection[str]) -> Encoded:
    """UTF-8 that is damaged in places, or one of the old encodings."""
    where = f"byte {error.start + 1:,} (line {sample.count(10, 0, error.start) + 1:,})"
    if error.start >= head:
        where = "a later byte"
    high = sum(len(run) for run in re.findall(rb"[\x80-\xff]+", sample))
    letters = sum(map(len, _LETTER.findall(sample)))
    rest = len(sample) - error.start
    cut_at_the_end = rest <= 3 and letters == high - rest
    # Some old encodings make such pairs of bytes too, and then read well.
    if cut_at_the_end or letters > _NEARLY_ALL * high or (letters > high / 2 and not guesses(sample).well):
        return Encoded("utf-8", f"UTF-8, with damage at {where}")
    found = guesses(sample)
    if found.sure:
        best = found.all[0]
        return Encoded(best.codec, f"not UTF-8 at {where}; {best.evidence}: {shown(best.words)}", guessed=True)
    beside = next((each for each in found.all[:_OFFERED] if each.codec in like), None)
    if beside is None:
        raise EncodingUnsure(name, where, found)
    evidence = f"not UTF-8 at {where}; read like the other files, {shown(beside.words)}"
    return Encoded(beside.codec, evidence, guessed=True)


def _is_escaped(head: bytes) -> bool:
    """Whether letters are written by escape sequences and ASCII, as Japanese mail has them."""
    if not head.isascii() or _ESCAPED.search(head) is None:
        return False
    try:
        head[: head.rfind(b"\n") + 1 or None].decode("iso2022_jp_2")
    except UnicodeDecodeError:
        return False
    return True


def _with_nuls(name: str, head: bytes) -> Encoded:
    codec = _wide_by_nuls(head)
    if codec and codec.startswith("utf-32"):
        return Encoded(codec, "three of four bytes of its plain letters are zero", guessed=True)
    if codec:
        return Encoded(codec, "every other byte of its plain letters is zero", guessed=True)
    if head.count(0) * 100 > len(head) or _is_binary(head):
        raise _no_text(name)
    return Encoded("utf-8", "UTF-8, with zero bytes in it")


def _is_binary(head: bytes) -> bool:
    return len(head) - len(head.translate(None, _CONTROLS)) > _MOST_CONTROLS * len(head)


def _no_text(name: str) -> DataError:
    return DataError(f"{name} is not a text file, despite its name. Save it as JSONL, CSV or Parquet.")


def _wide_by_nuls(head: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark: what their bytes would be is text, and nearly all of it such as people write."""
    head = head[: _LOOKED_AT_BYTES - _LOOKED_AT_BYTES % 4]
    if len(head) < 8:
        return None
    fourth = [head[start::4].count(0) * 4 / len(head) for start in range(4)]
    if fourth[2] > 0.98 and fourth[3] > 0.98 or fourth[0] > 0.98 and fourth[1] > 0.98:
        return "utf-32-le" if fourth[3] > fourth[0] else "utf-32-be"
    by_share = [(_share_of_text(head, codec), codec) for codec in ("utf-16-le", "utf-16-be")]
    share, codec = max(by_share)
    return codec if share >= 0.98 and share > min(by_share)[0] else None


def _share_of_text(head: bytes, codec: str) -> float:
    """The share of characters that text has, where some are plain ones, as a line end or a quote is."""
    letters = head[: len(head) - len(head) % 2].decode(codec, "replace")
    plain = sum(letter < "\x7f" for letter in letters)
    others = sum(unicodedata.category(letter) in _NOT_TEXT and letter not in "\t\n\r\f" for letter in letters)
    others += letters.count("\ufffd")
    return 1 - others / len(letters) if plain * 50 >= len(letters) else 0.0


def _whole_lines(block: bytes, full: int) -> bytes:
    """`block` without the line that was cut when it was `full`, so that no letter is cut in two."""
    if len(block) < full:
        return block
    end = block.rfind(b"\n") + 1
    if not end and not block.isascii():  # a space, a comma or a quote is part of no longer letter
        end = max(block.rfind(b" "), block.rfind(b","), block.rfind(b'"')) + 1
    return block[:end] if end > 1 else block


def _further(blob: Blob) -> bytes:
    """Whole lines from further places of a large plain file; nothing of a packed one, which would be unpacked."""
    if blob.path is None or blob.size <= HEAD:
        return b""
    found = []
    step = max((blob.size - HEAD) // _FURTHER_BLOCKS, _BLOCK)
    with blob.path.open("rb") as file:
        for start in range(HEAD, blob.size, step):
            file.seek(start)
            block = file.read(_BLOCK)
            first, last = block.find(b"\n") + 1, block.rfind(b"\n") + 1
            found.append(block[first:last] if first else b"")
    return b"".join(found)
