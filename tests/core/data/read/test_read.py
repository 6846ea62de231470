"""Files to rows: every kind, packing and encoding gives the same rows, and says how it was read."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.conversation import Finding, Unreadable
from core.data.read import SUFFIXES, blob, columns, lines, open_source, table, text, window
from core.errors import DataError
from tests.core.data.read.odd_parts import CHINESE, GOOD, JAPANESE, KOREAN, LINES, TABLE, TURNS, WESTERN

Rows = list[dict[str, Any]]


def _write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _rows(path: Path, encoding: str = "auto") -> list[Any]:
    return list(open_source(path, encoding).rows())


def _findings(path: Path) -> dict[str, Finding]:
    source = open_source(path)
    list(source.rows())
    return {finding.code: finding for finding in source.findings()}


def _as(kind: str, rows: Rows) -> bytes:
    """`rows` of text columns as a file of that kind."""
    if kind == "json":
        return json.dumps(rows, ensure_ascii=False, indent=1).encode()
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if kind in ("csv", "tsv"):
        table = io.StringIO()
        delimiter = "," if kind == "csv" else "\t"
        writer = csv.DictWriter(table, list(rows[0]), delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return table.getvalue().encode()
    import pyarrow
    import pyarrow.parquet

    made, sink = pyarrow.Table.from_pylist(rows), io.BytesIO()
    if kind == "parquet":
        pyarrow.parquet.write_table(made, sink)
        return sink.getvalue()
    with pyarrow.ipc.new_file(sink, made.schema) as writer:
        writer.write_table(made)
    return sink.getvalue()


@pytest.mark.parametrize("packing", ["", ".gz", ".zip"])
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "tsv", "parquet", "arrow"])
def test_every_kind_gives_the_same_rows_plain_and_packed(kind: str, packing: str, tmp_path: Path) -> None:
    content = _as(kind, GOOD)
    if packing == ".gz":
        content = gzip.compress(content)
    elif packing == ".zip":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(f"rows.{kind}", content)
        content = packed.getvalue()
    source = open_source(_write(tmp_path, f"rows.{kind}{packing}", content))
    assert list(source.rows()) == GOOD
    assert list(source.rows()) == GOOD, "it can be read again"
    assert [(file.kind, file.rows) for file in source.files] == [(kind, 3)]
    assert source.bytes >= len(content) * 0.3


_LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ue00d\ufeff")
_TEXTS = st.text(_LETTERS, min_size=1, max_size=30).filter(
    lambda each: each not in ("nan", "NaN") and each[0] not in "[{"
)


@given(
    rows=st.lists(st.fixed_dictionaries({"prompt": _TEXTS, "completion": _TEXTS}), min_size=1, max_size=8),
    kind=st.sampled_from(["json", "jsonl", "csv", "tsv", "parquet"]),
)
@settings(max_examples=150, deadline=None)
def test_any_rows_come_back_from_any_kind(tmp_path_factory: pytest.TempPathFactory, rows: Rows, kind: str) -> None:
    path = _write(tmp_path_factory.mktemp("any"), f"rows.{kind}", _as(kind, rows))
    assert _rows(path, "utf-8") == rows


@given(content=st.binary(min_size=1, max_size=300), suffix=st.sampled_from(SUFFIXES))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_rows_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = _write(tmp_path_factory.mktemp("bytes"), f"rows{suffix}", content)
    try:
        assert all(isinstance(row, dict | Unreadable) for row in _rows(path))
    except DataError as error:
        assert path.name in str(error)


@given(cut=st.integers(1, len(json.dumps(GOOD)) - 1))
@settings(max_examples=60, deadline=None)
def test_an_array_that_is_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = _write(tmp_path_factory.mktemp("cut"), "rows.json", json.dumps(GOOD)[:cut])
    with pytest.raises(DataError, match=r"rows\.json, line 1: the file ends|quote that is never closed"):
        _rows(path)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("wrapped", [False, True])
def test_rows_are_the_same_wherever_the_window_ends(
    size: int, wrapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": 'é\n\\ "quoted" 😀', "n": [1, -2.5e3, 12345, None, True]}, *GOOD, {"a": {"b": {}}}]
    monkeypatch.setattr(text, "BLOCK", size)
    monkeypatch.setattr(blob, "BLOCK", size)
    value = {"version": 12, "rows": rows, "more": "x"} if wrapped else rows
    assert _rows(_write(tmp_path, "rows.json", json.dumps(value, indent=2))) == rows


@pytest.mark.parametrize(
    ("codec", "pairs", "name", "evidence"),
    [
        ("cp949", KOREAN, "CP949 (Korean)", "are Korean syllables"),
        ("gbk", CHINESE, "GB18030 (Chinese)", "are Chinese"),
        ("shift_jis", JAPANESE, "Shift-JIS (Japanese)", "are Japanese kana"),
        ("cp1252", WESTERN, "Windows-1252", "are accented letters or marks"),
        ("utf-16-le", KOREAN, "UTF-16", "every other byte of its plain letters is zero"),
        ("utf-16", KOREAN, "UTF-16", "its byte order mark"),
        ("utf-8", KOREAN, "UTF-8", "valid UTF-8 with letters beyond ASCII"),
        ("utf-8-sig", KOREAN, "UTF-8", "its byte order mark"),
    ],
)
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_an_encoding_is_found_with_its_evidence(
    codec: str, pairs: list[tuple[str, str]], name: str, evidence: str, kind: str, tmp_path: Path
) -> None:
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]
    source = open_source(_write(tmp_path, f"rows.{kind}", _as(kind, rows).decode().encode(codec)))
    assert list(source.rows()) == rows
    assert source.files[0].encoding == name
    assert evidence in source.files[0].evidence


def test_the_place_where_it_is_not_utf8_is_said(tmp_path: Path) -> None:
    path = _write(tmp_path, "rows.csv", "prompt,completion\nHi,\nWo?,Où\n".encode("cp1252"))
    found = _findings(path)["encoding-guessed"]
    assert "not UTF-8 at byte 28 (line 3); 1 of 1 bytes beyond ASCII" in found.message
    assert "set the encoding" in found.mend


def test_an_encoding_chosen_by_hand_overrides(tmp_path: Path) -> None:
    path = _write(tmp_path, "rows.csv", b"prompt,completion\n\x81\x8d,\x9d\n")
    with pytest.raises(DataError, match="Set the encoding"):
        open_source(path)
    western = _write(tmp_path, "western.csv", "prompt,completion\né,è\n".encode("cp1252"))
    assert _rows(western, "windows-1252") == [{"prompt": "é", "completion": "è"}]
    assert isinstance(_rows(western, "utf-8")[0], Unreadable)


def test_an_old_encoding_is_found_behind_a_megabyte_of_ascii(tmp_path: Path) -> None:
    plain = json.dumps({"prompt": "a" * 1000, "completion": "b"}) + "\n"
    late = (json.dumps({"prompt": "é", "completion": "déjà"}, ensure_ascii=False) + "\n").encode("cp1252")
    path = _write(tmp_path, "rows.jsonl", plain.encode() * 3000 + late * 20_000)
    source = open_source(path)
    assert source.files[0].encoding == "Windows-1252"
    assert sum(1 for _ in source.rows()) == 23_000


@pytest.mark.parametrize(
    ("content", "evidence"),
    [
        (TABLE, "cells parted by commas in 4 of the first 4 rows"),
        (TABLE.replace(",", ";"), "cells parted by semicolons in 4 of the first 4 rows"),
        (TABLE.replace(",", "\t"), "cells parted by tabs in 4 of the first 4 rows"),
        ("sep=|\n" + TABLE.replace(",", "|"), "its first line says 'sep=|'"),
        ("prompt;completion\n1,5;2,5\n3,5;4,5\n", "cells parted by semicolons in 3 of the first 3 rows"),
        ("text\nOne, two.\nThree.\n", "one column"),
    ],
)
def test_a_delimiter_is_found_with_its_evidence(content: str, evidence: str, tmp_path: Path) -> None:
    source = open_source(_write(tmp_path, "rows.csv", content))
    assert evidence in source.files[0].evidence
    assert not [row for row in source.rows() if isinstance(row, Unreadable)]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (json.dumps(TURNS), TURNS),
        (repr(TURNS), TURNS),
        ("NaN", None),
        ("", None),
        ("null", "null"),
        ("[not JSON]", "[not JSON]"),
        ("a\rb", "a\nb"),
        ("a\r\nb", "a\nb"),
        (" spaces ", " spaces "),
    ],
)
def test_a_cell_has_the_value_that_it_holds(cell: str, value: Any, tmp_path: Path) -> None:
    quoted = cell.replace('"', '""')
    assert _rows(_write(tmp_path, "rows.csv", f'id,cell\n1,"{quoted}"\n')) == [{"id": "1", "cell": value}]


def test_a_reply_that_is_json_stays_text(tmp_path: Path) -> None:
    row = {"prompt": "Ann is 7.", "completion": '{"name": "Ann", "age": 7}'}
    assert _rows(_write(tmp_path, "rows.csv", _as("csv", [row]))) == [row]


def test_unreadable_rows_name_their_line_and_their_file(tmp_path: Path) -> None:
    _write(tmp_path, "a.jsonl", LINES + "{\n")
    _write(tmp_path, "b.csv", TABLE + 'x,"y"z\nalone\n')
    reasons = [row.reason for row in _rows(tmp_path) if isinstance(row, Unreadable)]
    assert [reason.partition(":")[0] for reason in reasons] == ["a.jsonl, line 4", "b.csv, line 5", "b.csv, line 6"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"a": "b",}', "column 11: there is a comma before the closing bracket; remove it"),
        ("{'a': 1}", "double"),
        ('{"a": True}', "JSON uses null, true, false"),
        ('{"a": "b"} {"c": 1}', "more after the end of the row"),
        ('{"a": "tab\there"}', r"JSON writes it as \n or \t"),
        ('{"a": "b" "c"}', "a comma is missing here"),
        ('{"a" 1}', "a colon is expected here"),
        ('"hello"', "is text, not an object"),
        ("12", "is a number, not an object"),
        ("null", "is null, not an object"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_in_plain_words(line: str, said: str, tmp_path: Path) -> None:
    broken = _rows(_write(tmp_path, "rows.jsonl", f"{LINES}{line}\n"))[3]
    assert isinstance(broken, Unreadable)
    assert broken.reason.startswith("line 4: ")
    assert said in broken.reason


def test_a_cut_last_line_is_told_from_a_broken_one(tmp_path: Path) -> None:
    cut = _rows(_write(tmp_path, "rows.jsonl", LINES + '{"prompt": "a", "comp'))[3]
    assert cut == Unreadable("line 4: ends in the middle of a row; the file seems to be truncated")


def test_findings_hold_the_rows_and_count_on(tmp_path: Path) -> None:
    garbled = json.dumps({"prompt": "cafÃ©", "completion": "b"}, ensure_ascii=False) + "\n"
    found = _findings(_write(tmp_path, "rows.jsonl", (LINES + garbled) * 1500))["mojibake"]
    assert (found.rows[:2], len(found.rows), found.count) == ([4, 8], 1000, 1500)


@pytest.mark.parametrize(
    "text", ["voilà\u00a0»", "qualité\u00a0» et «\u00a0été", "groß“", "안녕하세요", "Привет", "São"]
)
def test_good_letters_are_not_called_garbled(text: str, tmp_path: Path) -> None:
    assert "mojibake" not in _findings(_write(tmp_path, "rows.jsonl", _as("jsonl", [{"prompt": text}])))


@pytest.mark.parametrize(
    "text",
    [
        "안녕하세요",
        "don’t",
        "Où?",
        "日本語",
        "Привет",
        "😀",
        "مرحبا بكم",
        "Šiandien saulėta",
        "Καλημέρα",
        "Dnes svítí slunce",
    ],
)
def test_letters_read_in_a_wrong_encoding_are_garbled(text: str, tmp_path: Path) -> None:
    wrong = text.encode().decode("latin-1")
    for kind in ("jsonl", "json", "csv", "parquet"):
        assert "mojibake" in _findings(_write(tmp_path, f"rows.{kind}", _as(kind, [{"prompt": wrong, "a": "b"}])))


def test_progress_rises_to_the_size_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "BATCH_ROWS", 10)
    rows = [{"prompt": os.urandom(500).hex(), "completion": "b"} for _ in range(4000)]
    for kind in ("jsonl", "csv", "parquet", "arrow"):
        _write(tmp_path, f"rows.{kind}", _as(kind, rows))
    _write(tmp_path, "packed.jsonl.gz", gzip.compress(_as("jsonl", rows)))
    source, seen = open_source(tmp_path), []
    assert sum(1 for _ in source.rows(seen.append)) == 20_000
    assert seen == sorted(seen)
    assert len(set(seen)) > 100
    assert seen[-1] == source.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())


def test_a_folder_is_read_in_name_order_and_says_what_it_left_out(tmp_path: Path) -> None:
    _write(tmp_path, "b.jsonl", _as("jsonl", [{"prompt": "2"}]))
    _write(tmp_path, "a.csv", "prompt\n1\n")
    _write(tmp_path, "photo.png", b"\x89PNG\r\n\x1a\n")
    _write(tmp_path, ".hidden.jsonl", LINES)
    (tmp_path / "old").mkdir()
    source = open_source(tmp_path, name="My files")
    assert [row["prompt"] for row in source.rows()] == ["1", "2"]
    (left_out,) = source.findings()
    assert left_out.code == "file-left-out"
    assert "Of My files, not read: old, photo.png" in left_out.message


def test_a_damaged_file_of_several_is_not_left_out(tmp_path: Path) -> None:
    _write(tmp_path, "a.jsonl", LINES)
    _write(tmp_path, "b.parquet", _as("parquet", GOOD)[:-9])
    with pytest.raises(DataError, match=r"b\.parquet is not a complete Parquet file"):
        _rows(tmp_path)


def test_a_dataset_saved_by_datasets_is_read(tmp_path: Path) -> None:
    _write(tmp_path, "data-00000-of-00001.arrow", _as("arrow", GOOD))
    _write(tmp_path, "dataset_info.json", "{}")
    _write(tmp_path, "state.json", '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    assert _rows(tmp_path) == GOOD


def test_names_in_a_zip_packed_on_a_korean_computer_are_readable(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("XXXX.jsonl", LINES)
    path = _write(tmp_path, "rows.zip", packed.getvalue().replace(b"XXXX", "대화".encode("cp949")))
    assert [file.name for file in open_source(path).files] == ["rows.zip/대화.jsonl"]


def test_the_persons_own_name_stands_in_every_message(tmp_path: Path) -> None:
    path = _write(tmp_path, "upload-7f3a.jsonl", "{")
    with pytest.raises(DataError, match=r"mine\.jsonl, line 1"):
        list(open_source(path, name="mine.jsonl").rows())


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, "rows.jsonl", LINES)

    def forbidden(*arguments: Any, **more: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(DataError, match=r"rows\.jsonl cannot be read: Permission denied"):
        open_source(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.jsonl", LINES + json.dumps({"prompt": "a" * 5000}) + "\n" + LINES, "line 4: is longer than"),
        ("rows.json", json.dumps([*GOOD, {"prompt": "a" * 9000}]), "rows.json, line 1, column"),
        ("rows.json", '[{"prompt": "' + "word " * 3000, "rows.json, line 1, column"),
        ("rows.csv", TABLE + f'"{"a" * 5000}",b\n', "rows.csv, line 5: a cell is larger than"),
    ],
)
def test_a_row_without_an_end_is_not_read_into_memory(
    name: str, content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (text, lines, window, table):
        monkeypatch.setattr(module, "LONGEST", 2000)
    monkeypatch.setattr(text, "BLOCK", 500)
    path = _write(tmp_path, name, content)
    try:
        rows = _rows(path)
    except DataError as error:
        assert said in str(error)
    else:
        (broken,) = [row for row in rows if isinstance(row, Unreadable)]
        assert said in broken.reason
        assert len(rows) == 7


def test_plain_text_loses_nothing_but_white_space(tmp_path: Path) -> None:
    whole = "".join(f"Paragraph {number}: {'word ' * (number % 700)}\n\n" for number in range(900))
    rows = [row["text"] for row in _rows(_write(tmp_path, "book.md", whole.replace("\n", "\r\n")))]
    assert len(rows) > 5
    assert all(len(row) <= 150_000 for row in rows)
    assert "".join("".join(rows).split()) == "".join(whole.split())


def test_one_list_of_turns_is_one_conversation_but_a_table_of_turns_is_not(tmp_path: Path) -> None:
    assert _rows(_write(tmp_path, "chat.json", json.dumps(TURNS))) == [{"messages": TURNS}]
    table = [{**turn, "conversation_id": 1} for turn in TURNS]
    assert _rows(_write(tmp_path, "table.json", json.dumps(table))) == table
    wrapped = {"id": 1, "messages": table, "tools": [{"name": "x"}]}
    assert _rows(_write(tmp_path, "wrapped.json", json.dumps(wrapped))) == [wrapped]
