"""JSONL: a row a line. A line that is broken is one unreadable row, and the others are read."""

import json
from collections.abc import Iterator
from typing import Any

from core.data.conversation import Row, Unreadable
from core.data.read.blob import Progress
from core.data.read.jsons import as_row, explain, is_too_deep, make_decoder
from core.data.read.mojibake import is_garbled_json
from core.data.read.notes import Notes
from core.data.read.text import LONGEST, DecodedText

_TOO_DEEP = "is nested too deeply for a conversation"
_CUT_OFF = "ends in the middle of a row; the file seems to be truncated"


class _Broken(Exception):
    """Why a line is no row; never leaves this file."""


def read(text: DecodedText, notes: Notes, progress: Progress) -> Iterator[Row | Unreadable]:
    """The rows of a JSONL file; blank lines are none. Raises DataError where its bytes cannot be read on."""
    decoder = make_decoder(notes)
    for number, line in _numbered(text, progress):
        try:
            value = _decode(decoder, text, line, notes)
        except _Broken as error:
            if line.strip():
                yield Unreadable(f"line {number:,}: {error}")
            continue
        yield value if isinstance(value, dict) else as_row(value, f"line {number:,}")


def _numbered(text: DecodedText, progress: Progress) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers; of one that is too long, only its first piece."""
    number, within = 1, False
    for piece in text.lines(progress):
        if not within:
            yield number, piece
        within = not piece.endswith(b"\n")
        number += not within


def _decode(decoder: json.JSONDecoder, text: DecodedText, line: bytes, notes: Notes) -> Any:
    last = not line.endswith(b"\n")
    if last and len(line) >= LONGEST:
        raise _Broken(f"is longer than {LONGEST // 2**20} MB, too long for a conversation")
    try:
        letters = line.decode(text.codec, text.strictness)
    except UnicodeDecodeError as error:
        cut = last and error.reason == "unexpected end of data"
        raise _Broken(_CUT_OFF if cut else text.not_letters(error)) from None
    letters = letters.removeprefix("\ufeff")  # where files were put together, one may stand at any line
    if is_garbled_json(letters):
        notes.mark("mojibake")
    try:
        value = decoder.decode(letters)
    except json.JSONDecodeError as error:
        ended = error.pos >= len(letters.rstrip()) or error.msg.startswith("Unterminated string")
        reason = f"is not valid JSON at column {error.pos + 1:,}: {explain(letters, error)}"
        raise _Broken(_CUT_OFF if last and ended else reason) from None
    except RecursionError:
        raise _Broken(_TOO_DEEP) from None
    except ValueError:  # Python reads no whole number of thousands of digits
        raise _Broken("contains a number with thousands of digits") from None
    if is_too_deep(letters, value):
        raise _Broken(_TOO_DEEP)
    return value
