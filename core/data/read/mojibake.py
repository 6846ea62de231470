"""Garbled letters: text that was stored in one encoding and read in another."""

import re
from typing import Any

from core.data.conversation import texts_in

_REPLACED, *_READ_TWICE = (sign.encode() for sign in ("\N{REPLACEMENT CHARACTER}", "占쏙옙", "锟斤拷"))
# A letter of UTF-8 that was read as Windows-1252 or Latin-1 begins with one of Â to ô, and one of what the bytes 80 to
# BF look like follows. A quick look, in bytes of UTF-8, before the slow one.
_SUSPECT = re.compile(rb"\xc3[\x82-\xb4](?:[\xc2\xc5\xc6\xcb]|\xe2[\x80\x82\x84])")
# Such letters where JSON writes letters as \\uXXXX.
_ESCAPED = re.compile(r"\\u(?:fffd|00c[23]\\u(?:00[89ab]|20|01|02)|00e2\\u(?:20ac|0080)|00f0\\u(?:0178|009f))", re.I)


def is_garbled(text: str) -> bool:
    """Whether `text` shows letters that a wrong encoding makes."""
    if text.isascii():
        return False
    raw = text.encode("utf-8", "surrogatepass")  # to look for bytes in it is many times faster
    if _REPLACED in raw or _READ_TWICE[0] in raw or _READ_TWICE[1] in raw:
        return True
    if _SUSPECT.search(raw) is None:
        return False
    from ftfy.badness import is_bad  # hardly ever needed, and 25 ms of every start

    return bool(is_bad(text))


def is_garbled_json(line: str) -> bool:
    """The same of a line of JSON as it stands in the file, its escapes included."""
    return is_garbled(line) or ("\\u" in line and _ESCAPED.search(line) is not None)


def any_garbled(value: Any) -> bool:
    """Whether any text within `value`, lists and objects included, is garbled."""
    return any(is_garbled(text) for text in texts_in(value))
