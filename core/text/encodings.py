"""The encodings that text files come in: what the recipe, Python and a person call each, and for which languages."""

import codecs
from dataclasses import dataclass
from functools import cache

_WESTERN = "English German French Spanish Portuguese Italian Dutch Swedish Danish Finnish Icelandic Catalan"
_CENTRAL = "Czech Slovak Polish Hungarian Romanian Croatian Slovenian Albanian German English"
_BALTIC = "Lithuanian Latvian Estonian Polish German English"
_TURKISH = "Turkish German French English"
_CYRILLIC = "Russian Ukrainian Belarusian Bulgarian Serbian Macedonian"

_NO_TEXT = {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "mbcs", "oem"}


@dataclass(frozen=True)
class Encoding:
    """`name` is what data.encoding takes, `codec` what Python calls it, `label` what a person reads.

    `languages` are those that are told by their spelling; none for East Asia's, which are told by their characters.
    `rarity` is how much less often one meets it than the usual one for its letters, in nats.
    """

    name: str
    codec: str
    label: str
    languages: tuple[str, ...] = ()
    rarity: float = 0.0


def _of(name: str, codec: str, label: str, languages: str, rarity: float = 0.0) -> Encoding:
    return Encoding(name, codec, label, tuple(languages.split()), rarity)


# Those whose words can be told by their plain letters alone.
LATIN = tuple(dict.fromkeys(f"{_WESTERN} {_CENTRAL} {_BALTIC} Turkish Esperanto".split()))
# The usual ones first: of two that make the same of a file, the first is named.
SINGLE_BYTE = (
    _of("windows-1252", "cp1252", "Windows-1252 (Western Europe)", _WESTERN),
    _of("windows-1250", "cp1250", "Windows-1250 (Central Europe)", _CENTRAL, 0.5),
    _of("windows-1251", "cp1251", "Windows-1251 (Cyrillic)", _CYRILLIC),
    _of("windows-1253", "cp1253", "Windows-1253 (Greek)", "Greek", 1.0),
    _of("windows-1254", "cp1254", "Windows-1254 (Turkish)", _TURKISH, 1.0),
    _of("windows-1255", "cp1255", "Windows-1255 (Hebrew)", "Hebrew", 1.5),
    _of("windows-1256", "cp1256", "Windows-1256 (Arabic)", "Arabic Persian French", 1.5),
    _of("windows-1257", "cp1257", "Windows-1257 (Baltic)", _BALTIC, 2.0),
    _of("windows-1258", "cp1258", "Windows-1258 (Vietnamese)", "Vietnamese", 2.5),
    _of("windows-874", "cp874", "Windows-874 (Thai)", "Thai", 2.0),
    _of("koi8-r", "koi8_r", "KOI8-R (Russian)", "Russian", 1.0),
    _of("koi8-u", "koi8_u", "KOI8-U (Ukrainian)", "Ukrainian Belarusian", 1.0),
    _of("iso-8859-2", "iso8859_2", "ISO 8859-2 (Central Europe)", _CENTRAL, 1.0),
    _of("iso-8859-5", "iso8859_5", "ISO 8859-5 (Cyrillic)", _CYRILLIC, 1.0),
    _of("iso-8859-6", "iso8859_6", "ISO 8859-6 (Arabic)", "Arabic", 1.0),
    _of("iso-8859-7", "iso8859_7", "ISO 8859-7 (Greek)", "Greek", 1.0),
    _of("iso-8859-8", "iso8859_8", "ISO 8859-8 (Hebrew)", "Hebrew", 1.0),
    _of("iso-8859-9", "iso8859_9", "ISO 8859-9 (Turkish)", _TURKISH, 2.0),
    _of("iso-8859-13", "iso8859_13", "ISO 8859-13 (Baltic)", _BALTIC, 3.0),
    _of("iso-8859-3", "iso8859_3", "ISO 8859-3 (Esperanto, Maltese)", "Esperanto Italian", 2.0),
    _of("iso-8859-4", "iso8859_4", "ISO 8859-4 (Baltic)", _BALTIC, 4.0),
    _of("iso-8859-15", "iso8859_15", "ISO 8859-15 (Western Europe)", _WESTERN, 1.0),
    _of("iso-8859-16", "iso8859_16", "ISO 8859-16 (Romanian)", "Romanian Hungarian Polish Croatian", 8.0),
    _of("mac-roman", "mac_roman", "Mac Roman (Western Europe)", _WESTERN, 2.0),
    _of("mac-latin2", "mac_latin2", "Mac Central European", _CENTRAL + " Lithuanian Latvian Estonian", 2.0),
    _of("mac-cyrillic", "mac_cyrillic", "Mac Cyrillic", _CYRILLIC, 2.0),
    _of("mac-greek", "mac_greek", "Mac Greek", "Greek", 2.0),
    _of("mac-turkish", "mac_turkish", "Mac Turkish", "Turkish", 2.0),
    _of("mac-croatian", "mac_croatian", "Mac Croatian", "Croatian Slovenian", 3.0),
    _of("mac-romanian", "mac_romanian", "Mac Romanian", "Romanian", 3.0),
    _of("mac-iceland", "mac_iceland", "Mac Icelandic", "Icelandic", 3.0),
    _of("cp850", "cp850", "DOS 850 (Western Europe)", _WESTERN, 2.0),
    _of("cp437", "cp437", "DOS 437 (United States)", _WESTERN, 2.0),
    _of("cp852", "cp852", "DOS 852 (Central Europe)", _CENTRAL, 2.0),
    _of("cp866", "cp866", "DOS 866 (Cyrillic)", _CYRILLIC, 1.0),
    _of("cp855", "cp855", "DOS 855 (Cyrillic)", _CYRILLIC, 3.0),
    _of("cp775", "cp775", "DOS 775 (Baltic)", _BALTIC, 3.5),
    _of("cp857", "cp857", "DOS 857 (Turkish)", "Turkish", 2.0),
    _of("cp737", "cp737", "DOS 737 (Greek)", "Greek", 3.0),
    _of("cp862", "cp862", "DOS 862 (Hebrew)", "Hebrew", 5.0),
    _of("cp865", "cp865", "DOS 865 (Nordic)", "Danish", 3.0),
    _of("cp860", "cp860", "DOS 860 (Portuguese)", "Portuguese", 3.0),
    _of("cp720", "cp720", "DOS 720 (Arabic)", "Arabic", 5.0),
)
EAST_ASIAN = (
    Encoding("cp949", "cp949", "CP949 (Korean)"),
    Encoding("gb18030", "gb18030", "GBK, GB18030 (Chinese)"),
    Encoding("big5", "big5hkscs", "Big5 (traditional Chinese)"),
    Encoding("shift_jis", "cp932", "Shift-JIS (Japanese)"),
    Encoding("euc-jp", "euc_jis_2004", "EUC-JP (Japanese)"),
    Encoding("iso-2022-jp", "iso2022_jp_2", "ISO-2022-JP (Japanese)"),
)
UNICODE = (
    Encoding("utf-8", "utf-8", "UTF-8"),
    Encoding("utf-16", "utf-16", "UTF-16"),
    Encoding("utf-32", "utf-32", "UTF-32"),
)
ENCODINGS = (*UNICODE, *SINGLE_BYTE, *EAST_ASIAN)
_BY_NAME = {each.name: each for each in ENCODINGS}
_BY_CODEC = {each.codec: each for each in reversed(ENCODINGS)}
# What a person reads of a file that was recognised; a menu says more.
_SHORT = {
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16 (big-endian)",
    "utf-32-le": "UTF-32",
    "utf-32-be": "UTF-32 (big-endian)",
    "cp1252": "Windows-1252",
    "gb18030": "GB18030 (Chinese)",
}


def codec_of(name: str) -> str:
    """What Python calls the encoding that data.encoding names."""
    return _BY_NAME[name].codec if name in _BY_NAME else codecs.lookup(name).name


def name_of(codec: str) -> str:
    """The encoding of a codec as a person knows it."""
    return _SHORT.get(codec) or (_BY_CODEC[codec].label if codec in _BY_CODEC else codec)


@cache
def is_ascii_based(codec: str) -> bool:
    """Whether plain letters, line ends and quotes are the bytes that they are in ASCII."""
    plain = "\n\r\t,;:\"'{}[]azAZ09"
    return plain.encode(codec) == plain.encode("ascii")


def is_encoding(name: str) -> bool:
    """Whether `name` is one of ours, or another encoding of text that Python knows."""
    if name in _BY_NAME:
        return True
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return False
    return found._is_text_encoding and found.name.replace("-", "_") not in _NO_TEXT
