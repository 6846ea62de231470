"""Plain text and Markdown: one row a file; a long one is cut at the ends of paragraphs, or at form feeds."""

from collections.abc import Iterator

from core.data.conversation import Row, Unreadable
from core.data.read.blob import Progress
from core.data.read.mojibake import is_garbled
from core.data.read.notes import Notes
from core.data.read.text import DecodedText

SIZE = 100_000  # characters of a row


def read(text: DecodedText, notes: Notes, progress: Progress) -> Iterator[Row | Unreadable]:
    """Rows of `{"text"}`. Nothing but white space between them is left out."""
    rows = 0
    for part in _cut(_lines(text.pieces(progress))):
        if is_garbled(part):
            notes.mark("mojibake")
        rows += 1
        yield {"text": part}
    if rows > 1:
        notes.on_reading(
            "text-cut",
            "note",
            f"{text.name} was split into {rows:,} rows: at form feeds, and at the end of a paragraph every"
            f" {SIZE:,} characters or so.",
            "To split it elsewhere, insert a line with a form feed, or save the parts as separate files.",
        )


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    """The lines, each with its line feed; what is longer than a row without one comes cut after a word."""
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).replace("\r\n", "\n").split("\n")
        for line in lines:
            yield from _short(line + "\n")
        if len(rest) > 2 * SIZE:
            *whole, rest = _short(rest)
            yield from whole
    if rest:
        yield from _short(rest)


def _short(line: str) -> Iterator[str]:
    start = 0
    while len(line) - start > SIZE:
        end = line.rfind(" ", start, start + SIZE) + 1
        end = end if end > start else start + SIZE
        yield line[start:end]
        start = end
    yield line[start:]


def _cut(lines: Iterator[str]) -> Iterator[str]:
    """The lines put together to rows; rows that hold only white space are none."""
    kept: list[str] = []
    length = 0
    for line in lines:
        blank = not line.strip()
        feed = blank and "\f" in line
        if feed or (blank and length >= SIZE) or length + len(line) > 3 * SIZE // 2:
            yield from _joined(kept)
            kept, length = [], 0
        if not feed:
            kept.append(line)
            length += len(line)
    yield from _joined(kept)


def _joined(lines: list[str]) -> Iterator[str]:
    text = "".join(lines).strip("\r\n")
    if text.strip():
        yield text
