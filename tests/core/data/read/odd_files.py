"""The corpus of odd and malformed files: each of a kind of its own, with what reading it has to give.

`ODD_FILES` is run by the reader's tests, and from end to end by those of the whole way from file to tokens.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.core.data.read.odd_parts import (
    ARRAY,
    BLANKS,
    CHINESE,
    COLUMNS,
    DEEP,
    GOOD,
    JAPANESE,
    KOREAN,
    LINES,
    RUSSIAN,
    SAFETENSORS,
    TABLE,
    TAIWANESE,
    TURNS,
    WESTERN,
    arrow_of,
    damaged,
    folder_of,
    lines_of,
    locked,
    make_dangling,
    make_loop,
    make_socket,
    parquet_of,
    table_of,
    zip_of,
)


@dataclass(frozen=True)
class Odd:
    """One file: its `name`, which `kind` of oddity it is, how to make it, and what is expected of reading it.

    Either `said`: words of the one sentence that refuses it; or `rows`, of which `unreadable` are no rows, and
    `dropped` cannot be used in the end (where None: the unreadable ones; where all of them: the file is refused then).
    `finding` is a code that the reader has to report.
    """

    name: str
    kind: str
    content: bytes | str | Callable[[Path], object]
    said: tuple[str, ...] = ()
    rows: int = 0
    unreadable: int = 0
    dropped: int | None = None
    finding: str = ""

    def write(self, folder: Path) -> Path:
        """Make it within `folder`; returns the path to give to the reader."""
        path = folder / self.name
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content if isinstance(self.content, bytes) else self.content.encode())
        return path


NOTHING_IN_IT = [
    Odd("empty.jsonl", "a file of no bytes", b"", ("empty",)),
    Odd("blank.json", "only white space", b" \n\n \t\n", ("blank.json", "empty")),
    Odd("mark.csv", "only a byte order mark", b"\xef\xbb\xbf", ("mark.csv", "empty")),
    Odd("none.json", "an array of nothing", b"[]", ("none.json", "no rows")),
    Odd("header.csv", "a table with a header and no rows", "prompt,completion\n", ("header.csv", "no rows")),
    Odd("zero.parquet", "a Parquet file of no rows", parquet_of({"prompt": [], "completion": []}), ("no rows",)),
    Odd("blank.md", "Markdown of blank lines", "\n\n\n", ("blank.md", "empty")),
]

BROKEN_JSON = [
    Odd("comma.json", "a comma after the last row", '[{"a": "b"},\n]', ("line 2, column 1", "comma", "remove it")),
    Odd("inner.json", "a comma after the last value", '[{"a": "b",}]', ("line 1, column", "comma", "remove it")),
    Odd("single.json", "single quotes", "[\n {'prompt': 'a', 'completion': 'b'}\n]", ("line 2", "double")),
    Odd("python.json", "Python's None", '[{"prompt": None}]', ("line 1", "null")),
    Odd("between.json", "a comma missing between rows", '[{"a": 1}\n{"a": 2}]', ("line 2", "comma is missing")),
    Odd("comment.json", "a comment", '[\n// mine\n{"a": 1}]', ("line 2", "comment")),
    Odd("colon.json", "a colon missing", '[{"prompt" "x"}]', ("line 1", "colon")),
    Odd("cut.json", "an array that is cut off", ARRAY[:-30], ("ends in the middle of a row", "truncated", "line")),
    Odd(
        "open.json", "an array that is never closed", '[{"prompt": "a"},', ("ends in the middle of a row", "truncated")
    ),
    Odd("newline.json", "a line break within text", '[{"prompt": "a\nb"}]', ("line 1", "writes it as")),
    Odd("slash.json", "a backslash that escapes nothing", r'[{"prompt": "C:\data"}]', ("line 1", "backslash")),
    Odd("deep.json", "an array 100,000 levels deep", "[" * 100_000, ("nested too deeply",)),
    Odd("levels.json", "an array 500 levels deep, closed", "[" + DEEP + "]", ("nested too deeply",)),
    Odd("digits.json", "a number of 5,000 digits", "[" + "1" * 5000 + "]", ("thousands of digits",)),
    Odd(
        "two.json", "two arrays one after another", '[{"a": 1}]\n[{"a": 2}]', ("line 2", "there is more after the end")
    ),
    Odd("number.json", "a single number", "42", ("a number, not rows",)),
    Odd("text.json", "a single text", '"hello"', ("text, not rows",)),
    Odd(
        "words.json",
        "no JSON at all",
        "Hello there, friend.",
        ("line 1", "'Hello there, friend.'", ".txt for plain text"),
    ),
    Odd(
        "half.json",
        "UTF-8 that breaks in a JSON array",
        b'[{"prompt": "caf\xc3\xa9"},\n {"prompt": "\xe9t\xc3\xa9"}]' + b" " * 20,
        ("line 2", "0xe9", "UTF-8"),
    ),
]

SHAPES_OF_JSON = [
    Odd("several.json", "several arrays", '{"cats": [{"a": 1}], "dogs": [{"a": 2}]}', ("several arrays: cats, dogs",)),
    Odd("splits.json", "an array a split", '{"train": [{"a": 1}], "test": [{"a": 2}]}', rows=2, dropped=2),
    Odd("columns.json", "an array a column", json.dumps(COLUMNS), ("several arrays: prompt, completion",)),
    Odd(
        "wrapped.json",
        "an object that holds the array",
        json.dumps({"version": 1, "data": GOOD, "tags": ["x"]}),
        rows=3,
    ),
    Odd("one.json", "one object, one row", json.dumps(GOOD[0], indent=2), rows=1),
    Odd(
        "chat.json",
        "one object that holds one conversation",
        json.dumps({"id": 7, "messages": TURNS}, indent=1),
        rows=1,
    ),
    Odd("turns.json", "an array of turns, one conversation", json.dumps(TURNS, indent=1), rows=1),
    Odd("lists.json", "an array of arrays of turns", json.dumps([TURNS, TURNS]), rows=2),
    Odd(
        "pretty.json",
        "objects over several lines, one after another",
        "\n".join(json.dumps(row, indent=1) for row in GOOD),
        rows=3,
    ),
    Odd("numbers.json", "an array of numbers", "[1, 2]", rows=2, unreadable=2),
    Odd(
        "nan.json",
        "NaN and Infinity",
        '[{"prompt": "a", "completion": "b", "score": NaN, "x": -Infinity, "y": 1e999}]',
        rows=1,
        finding="not-a-number",
    ),
    Odd(
        "twice.json",
        "a name twice in an object",
        '[{"prompt": "a", "prompt": "c", "completion": "b"}]',
        rows=1,
        finding="duplicate-key",
    ),
    Odd(
        "ids.json",
        "numbers as names and ids",
        '[{"1": 2, "id": 123456789012345678901, "prompt": "a", "completion": "b"}]',
        rows=1,
    ),
]

JSON_LINES = [
    Odd("middle.jsonl", "a broken line among good ones", LINES + '{"prompt": "a" "x"}\n' + LINES, rows=7, unreadable=1),
    Odd("first.jsonl", "the first line is broken", '{"prompt": "a", \n' + LINES, rows=4, unreadable=1),
    Odd("cut.jsonl", "the last line is cut off", LINES + '{"prompt": "a", "comple', rows=4, unreadable=1),
    Odd("letter.jsonl", "cut off within a letter", (LINES + '{"prompt": "é').encode()[:-1], rows=4, unreadable=1),
    Odd("mixed.jsonl", "rows that are no objects", LINES + '42\n"text"\n[1]\nnull\ntrue\n', rows=8, unreadable=5),
    Odd("repr.jsonl", "rows as Python prints them", "".join(f"{row!r}\n" for row in GOOD), ("line 1", "double")),
    Odd("deep.jsonl", "a line 500 levels deep", LINES + DEEP, rows=4, unreadable=1),
    Odd(
        "abyss.jsonl",
        "a line 100,000 levels deep",
        LINES + '{"a": ' + "[" * 100_000 + "\n" + LINES,
        rows=7,
        unreadable=1,
    ),
    Odd(
        "digits.jsonl",
        "a line with a number of 5,000 digits",
        LINES + '{"a": ' + "1" * 5000 + "}\n",
        rows=4,
        unreadable=1,
    ),
    Odd("pairs.jsonl", "two rows on one line", LINES + '{"prompt": "a"} {"prompt": "b"}\n', rows=4, unreadable=1),
    Odd("commas.jsonl", "commas between the lines", LINES.replace("}\n", "},\n"), ("line 1", "remove it")),
    Odd("gaps.jsonl", "blank lines between rows", LINES.replace("\n", "\n\n  \n"), rows=3),
    Odd("dos.jsonl", "lines that end as on Windows", LINES.replace("\n", "\r\n"), rows=3),
    Odd("mac.jsonl", "lines that end as on old Macs", LINES.replace("\n", "\r"), rows=3),
    Odd("end.jsonl", "no line end after the last row", LINES.rstrip(), rows=3),
    Odd(
        "joined.jsonl", "a byte order mark within, where files were joined", "\ufeff" + LINES + "\ufeff" + LINES, rows=6
    ),
    Odd(
        "emoji.jsonl", "half an emoji, escaped", LINES + '{"prompt": "a", "completion": "\\ud83d"}\n', rows=4, dropped=1
    ),
    Odd(
        "zeros.jsonl",
        "zero bytes after the last row, as a crash leaves them",
        LINES.encode() * 9 + b"\0" * 12,
        rows=28,
        unreadable=1,
    ),
    Odd("object.jsonl", "a row that is empty", LINES + "{}\n", rows=4, dropped=1),
    Odd(
        "long.jsonl",
        "a row of three million letters",
        json.dumps({"prompt": "a", "completion": "word " * 600_000}) + "\n" + LINES,
        rows=4,
    ),
    Odd(
        "garbled.jsonl",
        "letters that were read in a wrong encoding",
        LINES + '{"prompt": "cafÃ© donâ€™t", "completion": "b"}\n',
        rows=4,
        finding="mojibake",
    ),
    Odd(
        "replaced.jsonl",
        "letters that were lost",
        LINES + '{"prompt": "caf\ufffd", "completion": "b"}\n',
        rows=4,
        finding="mojibake",
    ),
    Odd(
        "escaped.jsonl",
        "garbled letters behind escapes",
        json.dumps({"prompt": "donâ€™t", "completion": "b"}) + "\n" + LINES,
        rows=4,
        finding="mojibake",
    ),
    Odd(
        "markup.jsonl",
        "HTML and a script in the text",
        LINES + '{"prompt": "<img src=x onerror=alert(1)>", "completion": "<script>alert(1)</script>"}\n',
        rows=4,
    ),
    Odd(
        "half.jsonl",
        "UTF-8 with one line in Windows-1252",
        ("\n".join('{"prompt": "é à ü", "completion": "ß"}' for _ in range(5)) + "\n").encode()
        + '{"prompt": "é", "completion": "x"}\n'.encode("cp1252"),
        rows=6,
        unreadable=1,
    ),
]

ENCODINGS = [
    Odd("korean.csv", "CP949", table_of(KOREAN).encode("cp949"), rows=2, finding="encoding-guessed"),
    Odd("chinese.jsonl", "GBK", lines_of(CHINESE).encode("gbk"), rows=2, finding="encoding-guessed"),
    Odd("japanese.csv", "Shift-JIS", table_of(JAPANESE).encode("shift_jis"), rows=2, finding="encoding-guessed"),
    Odd("western.csv", "Windows-1252", table_of(WESTERN).encode("cp1252"), rows=2, finding="encoding-guessed"),
    Odd(
        "russian.csv",
        "Windows-1251",
        table_of(RUSSIAN).encode("cp1251"),
        rows=2,
        finding="encoding-guessed",
    ),
    Odd("taiwanese.csv", "Big5", table_of(TAIWANESE).encode("big5"), rows=2, finding="encoding-guessed"),
    Odd(
        "unknown.csv",
        "letters of no language",
        b"prompt,completion\n\x81\x8d,\x9d\n",
        ("line 2", "save the file as UTF-8"),
    ),
    Odd("excel.csv", "Excel's Unicode text: UTF-16 with tabs", table_of(KOREAN, "\t").encode("utf-16"), rows=2),
    Odd(
        "wide.jsonl",
        "UTF-16 without a mark, big-endian",
        lines_of(WESTERN).encode("utf-16-be"),
        rows=2,
        finding="encoding-guessed",
    ),
    Odd(
        "odd.jsonl",
        "UTF-16 that is cut within a letter",
        lines_of(KOREAN).encode("utf-16")[:-1],
        ("the file is truncated",),
    ),
    Odd("wider.jsonl", "UTF-32", lines_of(KOREAN).encode("utf-32"), rows=2),
    Odd("mark.jsonl", "UTF-8 with a byte order mark", lines_of(KOREAN).encode("utf-8-sig"), rows=2),
    Odd("mark.json", "an array in UTF-16 with a mark", json.dumps(GOOD).encode("utf-16"), rows=3),
    Odd("noise.txt", "random bytes under a text's name", bytes(range(128, 256)) * 20, ("noise.txt", "not UTF-8")),
]

TABLES = [
    Odd("few.csv", "a row with too few cells", TABLE + "alone\n", rows=4, unreadable=1),
    Odd("many.csv", "a row with too many cells", TABLE + "Hi, you,Hello\n", rows=4, unreadable=1),
    Odd("ragged.csv", "empty cells too many", TABLE + "Hi,Hello,,,\n", rows=4),
    Odd(
        "open.csv",
        "a quote that is never closed",
        TABLE + '"Hi,Hello\nx,y\n',
        ("line 5", "opens a quote and never closes it"),
    ),
    Odd("quote.csv", "a quote within a quoted cell", TABLE + '"say "Hi" now",Hello\nx,y\n', rows=5, unreadable=1),
    Odd("escape.csv", "quotes escaped by backslashes", TABLE + '"say \\"Hi\\", now",Hello\n', rows=4),
    Odd("twins.csv", "two columns of one name", "prompt,prompt\na,b\n", ("line 1", "same name", "Rename")),
    Odd("index.csv", "a column without a name", ",prompt,completion\n0,a,b\n", rows=1),
    Odd(
        "missing.csv",
        "no header",
        "How are you today?,Fine.\nWho are you?,Me.\n",
        rows=1,
        dropped=1,
        finding="header-is-data",
    ),
    Odd("stray.csv", "a carriage return in the header", "prompt\r,completion\na,b\n", rows=1, finding="stray-return"),
    Odd("cell.csv", "a carriage return in a cell", TABLE + '"a\rb",c\n', rows=4, finding="stray-return"),
    Odd("doubled.csv", "line ends of two carriage returns", TABLE.replace("\n", "\r\r\n"), rows=3),
    Odd("mac.csv", "a table with the line ends of old Macs", TABLE.replace("\n", "\r"), rows=3),
    Odd("semicolons.csv", "semicolons", TABLE.replace(",", ";"), rows=3),
    Odd("hint.csv", "Excel's line that names the delimiter", "sep=;\n" + TABLE.replace(",", ";"), rows=3),
    Odd("bars.csv", "bars", TABLE.replace(",", "|"), rows=3),
    Odd("commas.tsv", "commas in a .tsv", TABLE, rows=3),
    Odd(
        "cells.csv",
        "conversations as JSON in cells",
        'id,messages\n1,"' + json.dumps(TURNS).replace('"', '""') + '"\n',
        rows=1,
    ),
    Odd("printed.csv", "conversations as Python prints them in cells", f'id,messages\n1,"{TURNS!r}"\n', rows=1),
    Odd("nan.csv", "NaN and empty cells", TABLE + "NaN,x\n,\n", rows=5, dropped=2),
    Odd("book.csv", "a cell of a million letters", TABLE + f'"{"word " * 200_000}",b\n', rows=4),
    Odd("breaks.csv", "line breaks in a cell", TABLE + '"a\r\nb\n\nc",d\r\n', rows=4),
    Odd(
        "half.csv",
        "one line in another encoding",
        (TABLE + "é à,ü ö ä\n" * 5).encode() + b"caf\xe9,x\n",
        rows=9,
        unreadable=1,
    ),
]

PACKED = [
    Odd("good.jsonl.gz", "a gzip of lines", gzip.compress(LINES.encode()), rows=3),
    Odd(
        "cut.jsonl.gz",
        "a gzip that is cut off",
        gzip.compress(os.urandom(5000).hex().encode())[:-2000],
        ("is truncated",),
    ),
    Odd("bad.jsonl.gz", "a gzip with a flipped byte", damaged(gzip.compress(LINES.encode()), -6), ("damaged",)),
    Odd("hidden.jsonl", "a gzip behind another suffix", gzip.compress(LINES.encode()), rows=3),
    Odd("plain.jsonl.gz", "no gzip behind its suffix", LINES, rows=3),
    Odd(
        "bomb.jsonl.gz",
        "a gzip bomb",
        lambda path: path.write_bytes(gzip.compress(BLANKS * 2**20, 1)),
        ("times its size",),
    ),
    Odd(
        "good.zip",
        "a .zip of several, with what a Mac adds",
        zip_of({"b.jsonl": LINES, "a.csv": TABLE, "__MACOSX/._a.csv": b"\0\1", ".DS_Store": b"x"}),
        rows=6,
    ),
    Odd("disguised.jsonl", "a .zip behind another suffix", zip_of({"a.jsonl": LINES}), rows=3),
    Odd("locked.zip", "a .zip with a password", locked(zip_of({"a.jsonl": LINES})), ("password",)),
    Odd(
        "bomb.zip",
        "a .zip bomb",
        lambda path: path.write_bytes(zip_of({"a.jsonl": BLANKS * 2**20})),
        ("times its size",),
    ),
    Odd("nested.zip", "a .zip within a .zip", zip_of({"a.zip": zip_of({"a.jsonl": LINES})}), ("Unpack it first",)),
    Odd("cut.zip", "a .zip that is cut off", zip_of({"a.jsonl": LINES * 9})[:-40], ("not a complete .zip",)),
    Odd("bad.zip", "a .zip whose sum is wrong", damaged(zip_of({"a.jsonl": LINES * 9}), 60), ("damaged",)),
    Odd("useless.zip", "a .zip of pictures", zip_of({"a.png": b"\x89PNG\r\n\x1a\n"}), ("image",)),
    Odd("hollow.zip", "a .zip of nothing", zip_of({}), ("no data files",)),
    Odd("false.zip", "no .zip behind its suffix", LINES, ("not a complete .zip",)),
    Odd("tricks.zip", "a .zip with a path that leads out", zip_of({"../../evil.jsonl": LINES}), rows=3),
    Odd("columns.zip", "a .zip of a Parquet file", zip_of({"a.parquet": parquet_of(COLUMNS)}), rows=3),
    Odd(
        "partly.zip",
        "a .zip with a broken line in its second file",
        zip_of({"a.jsonl": LINES, "b.jsonl": LINES + '{"x\n'}),
        rows=7,
        unreadable=1,
    ),
    Odd("tape.tar.gz", "a tape archive", gzip.compress(b"x"), ("Unpack it first",)),
    Odd("seven.7z", "another packer's archive", b"7z\xbc\xaf\x27\x1c", ("Unpack it first",)),
]

COLUMNS = [
    Odd(
        "good.parquet",
        "a Parquet file of text and other columns",
        parquet_of({**COLUMNS, "score": [0.5, float("nan"), None], "raw": [b"x", b"\xff", None]}),
        rows=3,
    ),
    Odd(
        "bytes.parquet",
        "text stored as bytes",
        parquet_of({name: [value.encode() for value in values] for name, values in COLUMNS.items()}),
        rows=3,
    ),
    Odd("cut.parquet", "a Parquet file that is cut off", parquet_of(COLUMNS)[:-20], ("not a complete Parquet file",)),
    Odd(
        "bad.parquet",
        "a Parquet file with damage inside",
        b"PAR1" + os.urandom(200) + b"PAR1",
        ("not a complete Parquet file",),
    ),
    Odd("false.parquet", "lines named .parquet", LINES, ("is not a Parquet file",)),
    Odd("disguised.csv", "a Parquet file named .csv", parquet_of(COLUMNS), rows=3),
    Odd("good.arrow", "an Arrow file", arrow_of(stream=False), rows=3),
    Odd("stream.arrow", "an Arrow stream", arrow_of(stream=True), rows=3),
    Odd("good.feather", "Feather", arrow_of(stream=False), rows=3),
    Odd("cut.arrow", "an Arrow file that is cut off", arrow_of(stream=False)[:-60], ("not a complete Arrow file",)),
    Odd("old.feather", "Feather's first version", b"FEA1" + bytes(40) + b"FEA1", ("first version",)),
]

NO_DATASETS = [
    Odd(
        "letter.docx",
        "a word processor's document",
        zip_of({"word/document.xml": "<x/>"}),
        ("letter.docx", "plain text"),
    ),
    Odd("sheet.xlsx", "a spreadsheet", zip_of({"xl/workbook.xml": "<x/>"}), ("save it as csv",)),
    Odd("sheet.zip", "a spreadsheet named .zip", zip_of({"xl/workbook.xml": "<x/>"}), ("save it as csv",)),
    Odd("paper.pdf", "a PDF", b"%PDF-1.7\n", ("PDF", ".txt")),
    Odd("paper.jsonl", "a PDF named .jsonl", b"%PDF-1.7\n%\xe2\xe3", ("really a PDF",)),
    Odd("photo.png", "a picture", b"\x89PNG\r\n\x1a\n", ("image",)),
    Odd("photo.json", "a picture named .json", b"\xff\xd8\xff\xe0\x00\x10JFIF", ("really an image",)),
    Odd("voice.mp3", "sound", b"ID3\x03", ("sound or video",)),
    Odd("model.safetensors", "a model", SAFETENSORS, ("a model",)),
    Odd("model.gguf", "a model to run", b"GGUF\x03\0\0\0", ("a model",)),
    Odd("model.jsonl", "a model named .jsonl", SAFETENSORS, ("really a model",)),
    Odd("data.pkl", "a Python dump", b"\x80\x04\x95", ("run any code",)),
    Odd("page.json", "the web page that a download gave instead", "<!DOCTYPE html>\n<html>", ("really a web page",)),
    Odd(
        "pointer.jsonl",
        "Git's pointer to the data",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        ("Git LFS",),
    ),
    Odd("base.db", "a database", b"SQLite format 3\0", ("database",)),
    Odd("program.csv", "a program named .csv", b"\x7fELF\x02\x01\x01" + bytes(60), ("really a program",)),
    Odd("script.py", "a script", "print(1)\n", ("a program",)),
    Odd("unnamed", "a file without a suffix", LINES, ("not a supported file type",)),
    Odd("zeros.jsonl", "nothing but zero bytes", bytes(5000), ("zeros.jsonl",)),
    Odd("binary.json", "bytes that are no text", b"\x00\x01\x02PK\x03\x04", ("not a text file",)),
    Odd("random.jsonl", "random bytes", random.Random(0).randbytes(5000), ("not a text file",)),
    Odd("few.jsonl", "a few random bytes", random.Random(0).randbytes(200), ("not a text file",)),
    Odd(
        "no zero.csv",
        "random bytes, none of them zero",
        random.Random(0).randbytes(5000).replace(b"\0", b""),
        ("not a text file",),
    ),
]

OTHER_NAMES = [
    Odd("table.jsonl", "a table named .jsonl", TABLE, ("line 1", "prompt,completion", "suffix .csv")),
    Odd("lines.csv", "lines named .csv", LINES, rows=3),
    Odd("lines.json", "lines named .json", LINES, rows=3),
    Odd("lines.txt", "lines named .txt", LINES, rows=3),
    Odd("array.jsonl", "an array named .jsonl", ARRAY, rows=3),
]

TEXTS = [
    Odd("story.txt", "plain text, one row", "Once upon a time.\n\nThe end.\n", rows=1),
    Odd(
        "notes.md",
        "Markdown with rules and HTML, one row",
        "---\ntitle: x\n---\n# Hi\n\n<script>alert(1)</script>\n",
        rows=1,
    ),
    Odd("feeds.txt", "text in parts, by form feeds", "One.\n\f\nTwo.\n\f\n\f\nThree.\n", rows=3, finding="text-cut"),
    Odd("book.txt", "a book without form feeds", ("word " * 200 + "\n\n") * 350, rows=4, finding="text-cut"),
    Odd("endless.txt", "a long text without a line end", "word " * 60_000, rows=3, finding="text-cut"),
]

PLACES = [
    Odd(
        "mixed",
        "a folder of files with other columns",
        folder_of({"b.csv": TABLE, "a.jsonl": LINES, "README.md": "# About", "state.json": "{}"}),
        rows=6,
        finding="file-left-out",
    ),
    Odd(
        "text.ods",
        "a spreadsheet of LibreOffice",
        zip_of({"mimetype": "x", "content.xml": "<x/>"}),
        ("a spreadsheet. Save it as CSV",),
    ),
    Odd("book.epub", "an e-book", zip_of({"META-INF/container.xml": "<x/>"}), ("an e-book. Save it as plain text",)),
    Odd("book.zip", "an e-book named .zip", zip_of({"META-INF/container.xml": "<x/>"}), ("an e-book. Save it",)),
    Odd("bare", "a folder without files", folder_of({}), ("folder without data files",)),
    Odd("outer", "a folder of folders", folder_of({"cats/a.jsonl": LINES, "dogs/a.jsonl": LINES}), ("cats, dogs",)),
    Odd("lone", "a folder of a test folder", folder_of({"test/a.jsonl": LINES}), ("only folders: test",)),
    Odd("split", "a folder a split", folder_of({"train/a.jsonl": LINES, "test/a.jsonl": LINES}), rows=6, dropped=3),
    Odd("wrapped", "a folder as on the Hub", folder_of({"README.md": "#", "data/train-0.jsonl": LINES}), rows=3),
    Odd(
        "weights",
        "a model's folder",
        folder_of({"config.json": "{}", "model.safetensors": SAFETENSORS}),
        ("base model",),
    ),
    Odd("pictures", "a folder of pictures", folder_of({"a.png": b"\x89PNG", "b.png": b"\x89PNG"}), ("image",)),
    Odd("absent.jsonl", "a file that is not there", lambda path: None, ("no file absent.jsonl",)),
]
if hasattr(os, "mkfifo"):
    PLACES += [
        Odd("pipe.jsonl", "a pipe, which would wait for ever", os.mkfifo, ("pipe",)),
        Odd("socket.jsonl", "a socket", make_socket, ("pipe",)),
        Odd("loop.jsonl", "a link to itself", make_loop, ("loop.jsonl", "cannot be read")),
        Odd("dangling.jsonl", "a link to nothing", make_dangling, ("no file",)),
    ]

ODD_FILES: list[Odd] = [
    *NOTHING_IN_IT,
    *BROKEN_JSON,
    *SHAPES_OF_JSON,
    *JSON_LINES,
    *ENCODINGS,
    *TABLES,
    *PACKED,
    *COLUMNS,
    *NO_DATASETS,
    *OTHER_NAMES,
    *TEXTS,
    *PLACES,
]
