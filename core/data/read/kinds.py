"""What kind of file something is: by its first bytes where they are known, else by its suffix; or a refusal by name."""

import re

from core.errors import DataError


class NoDataset(DataError):
    """A file that is no dataset, by what it is; among others it is left out."""


SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".txt", ".md",
            ".gz", ".zip")  # fmt: skip
KNOWN = "JSON, JSONL, CSV, TSV, Parquet, Arrow, text or Markdown, each also as .gz or .zip"

_KINDS = {
    **{f".{kind}": kind for kind in ("json", "jsonl", "csv", "tsv", "parquet", "arrow", "markdown")},
    **{".ndjson": "jsonl", ".feather": "arrow", ".ipc": "arrow", ".txt": "text", ".md": "markdown"},
}
HEAD = 2**16  # bytes to tell it by
_PROVIDE = "Provide conversations as JSONL, CSV or Parquet."
_REFUSED = {
    (".docx", ".doc", ".odt", ".rtf", ".pages"): "is a word processor document. Save it as plain text (.txt), or its "
    "conversations as CSV.",
    (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"): "is a spreadsheet. Save it as CSV (UTF-8) and use that.",
    (".epub", ".mobi", ".azw", ".azw3", ".fb2"): "is an e-book. Save it as plain text (.txt) with an e-book reader.",
    (".pdf",): "is a PDF. Copy its text into a .txt file, or its conversations into a CSV or JSONL file.",
    (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".svg"): "is an image; Nibble "
    f"trains on text. {_PROVIDE}",
    (".mp3", ".wav", ".flac", ".ogg", ".m4a", ".mp4", ".mkv", ".avi", ".mov", ".webm"): "is sound or video; Nibble "
    f"trains on text. {_PROVIDE}",
    (".safetensors", ".gguf", ".ggml", ".pt", ".pth", ".bin", ".ckpt", ".onnx", ".h5"): "is a model, not a dataset. "
    "If it is your base model, choose it there, and provide conversations here.",
    (".pkl", ".pickle", ".npy", ".npz", ".joblib"): "is a Python pickle, which can run any code when loaded. "
    "Save the data as JSONL, CSV or Parquet.",
    (".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".bz2", ".xz", ".zst", ".lz4", ".br"): "uses an unsupported "
    "compression. Unpack it first, or pack it as .zip or .gz.",
    (".html", ".htm", ".xml"): "is a web page or XML. Save the conversations in it as JSONL or CSV.",
    (".yaml", ".yml", ".toml", ".ini", ".py", ".ipynb"): f"is a settings file or a program, not a dataset. {_PROVIDE}",
    (".db", ".sqlite", ".sqlite3", ".duckdb"): "is a database. Export the table with the conversations as CSV.",
}
_BY_SUFFIX = {suffix: refusal for suffixes, refusal in _REFUSED.items() for suffix in suffixes}
_MAGIC = (
    (rb"PAR1", "parquet"),
    (rb"ARROW1", "arrow"),
    (rb"\xff{4}[^\0]..\0", "arrow"),  # an IPC stream
    (rb"PK\x03\x04|PK\x05\x06", "zip"),
    (rb"\x1f\x8b\x08", "gz"),
)
_FOREIGN_TEXT = (
    (rb"%PDF-", ".pdf"),
    (rb"\{\\rtf", ".rtf"),
    (rb"(?:\xef\xbb\xbf)?\s*(?i:<!doctype html|<html|<\?xml)", ".html"),
)
_FOREIGN = (
    (rb"%PDF-", ".pdf"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|BM....\0\0\0\0|RIFF....WEBP|II\*\0|MM\0\*", ".png"),
    (rb"ID3|OggS|fLaC|RIFF....WAVE|....ftyp|\x1aE\xdf\xa3", ".mp3"),
    (rb"GGUF|.{6}\0\0\{\"", ".gguf"),
    (rb"\x80[\x02-\x05][}\]\x95c(]|\x93NUMPY", ".pkl"),
    (rb"7z\xbc\xaf|Rar!|BZh[1-9]1AY|\xfd7zXZ|\x28\xb5\x2f\xfd|.{257}ustar", ".7z"),
    (rb"\xd0\xcf\x11\xe0", ".doc"),
    (rb"SQLite format 3", ".db"),
)
_NO_LETTER = re.compile(rb"[\0-\x08\x80-\xff]")
_PROGRAM = re.compile(rb"\x7fELF|MZ.{58}|#!/", re.DOTALL)


def suffix_of(name: str) -> str:
    """The suffix in small letters: '.jsonl', or both of two as in '.tar.gz'; empty where there is none."""
    found = re.search(r"(?:\.tar)?\.[^.\s/\\]{1,12}$", name.lower())
    return found.group() if found else ""


def packing_of(name: str, head: bytes) -> str:
    """'zip' or 'gz' by the file's first bytes, else ''; .zip is believed, so that a broken one is said to be one."""
    found = _by_magic(head)
    return found if found in ("zip", "gz") else "zip" if suffix_of(name) == ".zip" else ""


def kind_of(name: str, inner: str, head: bytes) -> str:
    """The kind of the file `name`, whose name without compression is `inner`, from its first bytes `head`.

    One of json, jsonl, csv, tsv, text, markdown, parquet, arrow. Raises DataError for anything else, by name.
    """
    suffix = suffix_of(inner)
    _refuse_by_suffix(name, suffix)
    if suffix not in _KINDS:
        raise NoDataset(f"{name} is not a supported file type. Use {KNOWN}.")
    if len(head) < HEAD and not head.strip(b" \t\r\n\0\xef\xbb\xbf\xff\xfe"):
        raise NoDataset(f"{name} is empty. It should have one conversation per row.")
    _refuse_foreign(name, suffix, head)
    by_bytes = _by_magic(head)
    if by_bytes:
        return by_bytes
    kind = _KINDS[suffix]
    if kind in ("parquet", "arrow"):
        called = "a Parquet" if kind == "parquet" else "an Arrow"
        raise DataError(f"{name} is not {called} file, despite its name. Download or export it again.")
    return kind


def _refuse_by_suffix(name: str, suffix: str) -> None:
    if suffix in _BY_SUFFIX:
        raise NoDataset(f"{name} {_BY_SUFFIX[suffix]}")


def refuse_office(name: str, members: list[str]) -> None:
    """Raise DataError where the members of a .zip are those of a document, a spreadsheet or an e-book."""
    _refuse_by_suffix(name, suffix_of(name))
    kinds = (("word/", ".docx"), ("xl/", ".xlsx"), ("META-INF/container.xml", ".epub"), ("content.xml", ".odt"))
    for start, suffix in kinds:
        if any(member.startswith(start) for member in members):
            _refuse_by_suffix(name, suffix)


def _by_magic(head: bytes) -> str:
    return next((kind for magic, kind in _MAGIC if re.match(magic, head, re.DOTALL)), "")


def _refuse_foreign(name: str, suffix: str, head: bytes) -> None:
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise DataError(f"{name} only points to the data (Git LFS). Fetch it with 'git lfs pull', or download it.")
    if head.startswith(b"FEA1"):
        raise DataError(f"{name} is in the first version of Feather. Save it again with a newer pandas, or as Parquet.")
    is_text = suffix in (".txt", ".md", ".markdown")  # and may be about programs and web pages
    signs = (_FOREIGN if _NO_LETTER.search(head) else ()) + (() if is_text else _FOREIGN_TEXT)
    for magic, like in signs:
        if re.match(magic, head, re.DOTALL):
            raise NoDataset(f"{name} {_BY_SUFFIX[like].replace('is ', 'is really ', 1)}")
    if not is_text and _PROGRAM.match(head):
        raise NoDataset(f"{name} is really a program, not a dataset. Give {KNOWN}.")
